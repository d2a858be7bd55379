"""Stages: studies whose runs start from the checkpoints of another study.

    start: {study: arithmetic-foundational, configuration: best}     # or an id, or {top: 3} to sweep over three

Seed i starts from the last checkpoint of seed i. What a configuration starts from is a part of it (`StartFrom`), told
by the content of the checkpoints: with other weights there it is another configuration with another id, so results
never mix. Settings that the weights decide (the model, the tokenizer) are taken over (`Trainable.inherited`).

    study = stage_study(load_study("instruction.yaml"))     # a plain study, to be planned and run like any other

Imports neither torch nor Ray. Pipelines (`pipeline.py`) are stages in a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.configuration import STARTS_FROM, resolver_of
from rung.errors import RungError, StorageError
from rung.extension import begun_study, differences, extended
from rung.identity import essential, run_id
from rung.plan import Plan, make_plan
from rung.results.compare import find_configuration
from rung.results.confirmation import final_order, read_confirmation
from rung.results.query import StudyResults, load, storage_root
from rung.results.views import dicts
from rung.settings import StartFrom
from rung.study import BestOf, Study, study_json
from rung.trainable import find_trainable
from rung.training.checkpoint_files import digest, latest_checkpoint

if TYPE_CHECKING:
    from rung.results.confirmation import Confirmation
    from rung.results.tables import ConfigurationSummary

UNKNOWN = "unknown"
"""Stands for the weights of a study that has not been run yet."""

_KEY_DIGITS = 6


def stage_study(study: Study) -> Study:
    """A study as it is run: with what it starts from filled in, and in a folder that it can go on in.

    That is the folder of its name, unless a study is there that began from something else, because an input has
    changed since. Then this is a new study, whose name ends in a key made from what its runs depend on.

    Raises:
        RungError: what it starts from is not there, or not whole.
        StudyError: its trainable refuses what it takes over.
        StorageError: something cannot be read.
    """
    if study.start is None:
        return study
    study = resolved(study)
    return named_by_content(study) if has_changed_inputs(study) else study


def has_changed_inputs(study: Study) -> bool:
    """Whether another study is in the folder of this one: of another trainable, another base or another start."""
    begun = begun_study(study.directory)
    if begun is None:
        return False
    if STARTS_FROM in study.space and not _begun_starts(begun.directory) <= set(map(_identity, _starts(study))):
        return True
    plan = make_plan(study)
    try:
        extended(plan, begun)
    except RungError:
        changed = [path for path, _, _ in differences(begun.study, study_json(study, plan), plan)]
        return any(path == "trainable" or path.startswith(("base.", "space.start.")) for path in changed)
    return False


def named_by_content(study: Study) -> Study:
    """The study under a name that ends in a key: the same for the same trainable, base and start."""
    resolver = resolver_of(study)
    inputs = [
        study.trainable,
        essential(resolver.model, json.loads(json.dumps(resolver.base, default=str))),
        _starts(study) if STARTS_FROM in study.space else None,
    ]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
    return study.model_copy(update={"study": f"{study.study}-{key}"})


def _starts(study: Study) -> list[Mapping[str, str]]:
    """The checkpoints that configurations of a study start from, in an order that no ranking changes."""
    return sorted((taken["start"] for taken in study.inherited.values()), key=lambda start: start["configuration"])


def _identity(start: Mapping[str, Any], prefix: str = "") -> tuple[Any, ...]:
    return tuple(start.get(f"{prefix}{name}") for name in StartFrom.model_fields)


def _begun_starts(directory: Path) -> set[tuple[Any, ...]]:
    """The checkpoints that configurations of a study that has begun start from."""
    return {_identity(row, "config.start.") for row in dicts(load(directory).configurations)}


def resolved(study: Study) -> Study:
    """A study with what its runs start from filled in.

    Raises:
        RungError: the study that it starts from is not there, has not come to its end, has no such configuration, or
            lacks a checkpoint; says what is to be done.
        StorageError: it cannot be read.
    """
    choice = study.start
    if choice is None or study.inherited:
        return study
    results = _results(study)
    search = results.summary()
    confirmation = read_confirmation(results.study, search, results.summary("confirm"))
    _check_over(results, search, confirmation)
    chosen = _chosen(results, final_order(search, confirmation), choice.configuration)
    _check_checkpoints(study, results, chosen)
    return study.starting_from({entry.config_id: _taken_over(study, results, entry.config_id) for entry in chosen})


def assumed(study: Study, before: Plan) -> Study:
    """The study as it will be, as far as that is known before the study that it starts from has been run: as if the
    first configurations of its plan were chosen. For plans of what a pipeline would cost."""
    if study.start is None:
        return study
    choice = study.start.configuration
    wanted = choice.top if isinstance(choice, BestOf) else 1
    kind = find_trainable(study.trainable)
    return study.starting_from(
        {
            each.config_id: {
                **kind.inherited(each.config),
                "start": {"study": before.study.study, "configuration": each.config_id, "weights": UNKNOWN},
            }
            for each in sorted(before.examples, key=lambda example: example.index)[:wanted]
        }
    )


def _results(study: Study) -> StudyResults:
    assert study.start is not None
    if study.start.study == study.study:
        raise RungError(f"start: {study.study} cannot start from itself")
    try:
        return load(study.start.study, storage_root(study.storage))
    except StorageError as error:
        raise RungError(
            f"start: {study.study} starts from {study.start.study}, which has not been run: {error}"
        ) from error


def _check_over(
    results: StudyResults, search: Sequence[ConfigurationSummary], confirmation: Confirmation | None
) -> None:
    name = results.directory.name
    if results.live():
        raise RungError(f"start: {name} is being run now: wait for its end")
    if not search or not all(entry.has_ended for entry in search) or (confirmation and not confirmation.is_over):
        raise RungError(
            f"start: {name} has not come to its end: run it first, the same command goes on where it stopped"
        )


def _chosen(
    results: StudyResults, ordered: Sequence[ConfigurationSummary], rule: str | BestOf
) -> list[ConfigurationSummary]:
    """The configurations that a rule chooses, best first."""
    if isinstance(rule, str) and rule != "best":
        wanted = find_configuration(results, rule).config_id
        return [entry for entry in ordered if entry.config_id == wanted]
    count = rule.top if isinstance(rule, BestOf) else 1
    ended = [entry for entry in ordered if entry.score is not None and not entry.stopped]
    if len(ended) < count:
        wanted = "its best configuration" if count == 1 else f"the best {count}"
        raise RungError(f"start: {wanted} of {results.directory.name}: {len(ended)} came to their end with a value")
    return ended[:count]


def _check_checkpoints(study: Study, results: StudyResults, chosen: Iterable[ConfigurationSummary]) -> None:
    lacking = [each for entry in chosen for each in _lacking(study, results, entry.config_id)]
    if lacking:
        more = f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        raise RungError(
            f"start: seed i of {study.study} starts from seed i of {results.directory.name}, where these runs have "
            f"left no checkpoint: {', '.join(lacking[:6])}{more}. Run {results.directory.name} with as many seeds "
            "(its `seeds`, for phase confirm its `confirm`) and let it keep them (`checkpoints: {keep: best}`, or how "
            "many)"
        )


def _lacking(study: Study, results: StudyResults, config_id: str) -> Iterator[str]:
    """Runs of a configuration that are needed and have completed with no checkpoint, or have not completed."""
    status = {row["run_id"]: row["status"] for row in dicts(results.runs.filter(f"config_id = '{config_id}'"))}
    fresh = study.confirm.fresh_seeds if study.confirm else ()
    for seed, phase in [*((seed, "search") for seed in study.seeds), *((seed, "confirm") for seed in fresh)]:
        name = run_id(config_id, seed, phase)
        if status.get(name) in ("diverged", "failed"):
            yield f"{name} ({status[name]})"
        elif _checkpoint(results, name) is None:
            yield name


def _checkpoint(results: StudyResults, name: str) -> Path | None:
    return latest_checkpoint(results.directory / "checkpoints" / name)


def _taken_over(study: Study, results: StudyResults, config_id: str) -> dict[str, Any]:
    """What lies below the study's base in configurations that start from this one."""
    row = dicts(results.configurations.filter(f"config_id = '{config_id}'"))[0]
    config = find_trainable(row["trainable"]).Config.model_validate_json(row["config_json"])
    taken: Mapping[str, Any] = find_trainable(study.trainable).inherited(config)
    weights = weights_key(results, config_id)
    return {**taken, "start": {"study": results.directory.name, "configuration": config_id, "weights": weights}}


def weights_key(results: StudyResults, config_id: str) -> str | None:
    """`StartFrom.weights` of a configuration as its checkpoints are now; None: there are none."""
    # Seeds may join later, so those of one run stand for all.
    found = (_checkpoint(results, run_id(config_id, seed)) for seed in results.study["seeds"])
    first = next(filter(None, found), None)
    return None if first is None else digest(first)[:12]
