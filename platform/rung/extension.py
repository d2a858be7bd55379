"""What may change about a study that has begun: more of the same, nothing that gives existing rows another meaning.

    begun = begun_study(study.directory)
    plan, additions = extended(plan, begun)      # "seeds: 4 become 8", ...; raises RungError

More seeds, more samples, a wider space, a longer budget, another confirmation: what is there stays, and the same
command trains what is missing. Decisions stand: what was stopped stays stopped, judged by the seeds that it had. Rungs
stand too; a longer budget gets new ones above the old budget only, since runs that are there have passed all below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rung.errors import RungError, StorageError
from rung.identity import essential
from rung.plan import Plan
from rung.results.files import COMPLETE
from rung.results.query import load
from rung.study import study_json
from rung.trainable import find_trainable
from rung.tuning.schedulers import geometric_levels

Difference = tuple[str, Any, Any]
"""Dotted path, old value, new value; None where there is none."""

_NOT_COMPARED = (
    "storage",
    "checkpoints",
    "failures",
    "swept",
    "rungs",
    "seed_counts",
    "confirm",
    "format",
    "references",
    "start",
    "tracking",
)
"""What changes no row, and what follows from the other keys."""


_DEALT = "hyperband has dealt the configurations to brackets whose rungs and sizes would be others"


@dataclass(frozen=True)
class BegunStudy:
    """What earlier commands have left of a study."""

    directory: Path
    study: Mapping[str, Any]
    """study.json."""
    config_ids: frozenset[str]
    """Configurations that have rows."""


def begun_study(directory: Path) -> BegunStudy | None:
    """The study in a directory; None where none has begun.

    Raises:
        StorageError: it cannot be read.
    """
    path = directory / "study.json"
    if not path.exists() and not any(directory.glob("tables/*/*.parquet")):
        return None
    try:
        study = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"cannot read {path}: {error}. It says which study the rows beside it belong to: put a copy of it there "
            "(every launch in provenance.json has one, as `study`), or move the directory away to begin anew"
        ) from error
    rows = load(directory).configurations.select("config_id").fetchall()
    return BegunStudy(directory, study, frozenset(config_id for (config_id,) in rows))


def extended(plan: Plan, begun: BegunStudy) -> tuple[Plan, list[str]]:
    """The plan as it goes on from what is there, and what is new about it, in sentences.

    Raises:
        RungError: it would change the meaning of rows that are there; names every such change and why.
    """
    plan = _with_rungs_that_stand(plan, begun.study)
    found = differences(begun.study, study_json(plan.study, plan), plan)
    refused = []
    for path, old, new in found:
        why = _objection(path, old, new, plan, begun)
        if why is not None:
            refused.append(f"  {_written(path, plan)}: {_value(old)} there, {_value(new)} now ({why})")
    if refused:
        more = [f"  and {len(refused) - 8} more"] if len(refused) > 8 else []
        raise RungError(
            f"{begun.directory} holds a study called {plan.study.study!r} that this one cannot go on with:\n"
            + "\n".join([*refused[:8], *more])
            + "\nGive this one another name (study: ...) or another place (--set storage=DIR), or remove that directory"
        )
    return plan, list(_additions(found, plan, begun))


def _written(path: str, plan: Plan) -> str:
    """A key of study.json as the study file has it."""
    names = {"seeds_at_start": "seeds.start", "budget.amount": f"budget.{plan.unit}", "budget.unit": "budget"}
    return names.get(path, path)


def _value(value: Any) -> str:
    return "not set" if value is None else repr(value)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], plan: Plan) -> list[Difference]:
    """How two resolved studies (`study_json`) differ in what could change a row.

    Where results are stored, on which resources, with which checkpoints and retries makes no difference; nor does a
    key that an earlier version did not have, at its default.
    """
    model = find_trainable(plan.study.trainable).Config
    sides = []
    for side in (old, new):
        kept = {key: value for key, value in side.items() if key not in _NOT_COMPARED}
        sides.append({**kept, "base": essential(model, side.get("base", {}))})
    found = list(_differences(sides[0], sides[1], ""))
    follows = {"metric.worst_value"}  # from the metric, or from a trainable that says more of it now
    return [
        each
        for each in found
        if each[0] not in follows and not (each[1] is None and _is_default(each[0], each[2], plan))
    ]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[Difference]:
    for key in dict.fromkeys([*old, *new]):
        before, after, path = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{path}.")
        elif before != after:
            yield path, before, after


def _is_default(path: str, value: Any, plan: Plan) -> bool:
    """Whether a key of the study (not of its trainable) stands at its default."""
    model: Any = type(plan.study)
    for key in path.split("."):
        field = getattr(model, "model_fields", {}).get(key)
        if field is None:
            return False
        default = field.get_default(call_default_factory=True)
        model = field.annotation
    return bool(value == default)


def _with_rungs_that_stand(plan: Plan, study: Mapping[str, Any]) -> Plan:
    """The plan with the rungs of the study that is there, and those of a longer budget above the old one."""
    *there, amount = study["rungs"]
    choice, budget = plan.study.scheduler, plan.rungs[-1]
    is_another_rule = choice.name != study["scheduler"]["name"] or choice.grace not in (None, *there[:1])
    if choice.name == "fifo" or is_another_rule or budget < amount or not there:
        return plan
    above = [level for level in geometric_levels(there[0], choice.reduction_factor, budget) if level > amount]
    # All seeds of those who were through before have passed the old budget.
    full = len(plan.study.seeds)
    counts = [full] * len(there) if plan.study.seeds.start is None else study["seed_counts"][: len(there)]
    return replace(plan, rungs=(*there, *above, budget), seed_counts=(*counts, *[full] * (len(above) + 1)))


def _objection(path: str, old: Any, new: Any, plan: Plan, begun: BegunStudy) -> str | None:
    """Why a study that is there cannot go on with this difference; None: it can."""
    key = path.split(".")[0]
    if key in ("space", "base", "samples", "draw_seed"):
        return _objection_to_space(path, old, new, plan, begun)
    if path == "seeds":
        gone = [seed for seed in old if seed not in new]
        if gone:
            return f"its runs with seed {gone[0]} are there"
        is_racing = plan.study.seeds.start is not None
        is_out_of_order = is_racing and new[: len(old)] != old
        return "seeds join the race in their order: add new ones at the end" if is_out_of_order else None
    if path == "seeds_at_start":
        return "rungs have been decided with so many seeds" if len(begun.study["rungs"]) > 1 else None
    if path == "budget.amount":
        return "runs have been trained beyond it" if new < old else _objection_to_longer(plan, old)
    if path == "budget.wall_clock" and old is not None and (new is None or new > old):
        return None
    if path == "scheduler.grace":
        return "the rungs stand: leave it out"
    if path == "resources.gpus":
        return "a GPU computes other numbers than a CPU" if bool(old) != bool(new) else None
    reasons = {
        "metric": "values and decisions there were made by the other",
        "scheduler": "decisions there were made by the other",
        "budget": "runs there have ended by the other",
        "replication": "it changes numbers",
    }
    return None if key == "resources" else reasons.get(key, "rows there were made with the other")


def _objection_to_space(path: str, old: Any, new: Any, plan: Plan, begun: BegunStudy) -> str | None:
    if plan.study.scheduler.name == "hyperband":
        return _DEALT
    if plan.study.searcher.name != "plan":
        return None if path == "samples" and new > old else f"{plan.study.searcher.name} has learnt from this space"
    gone = begun.config_ids - {each.config_id for each in plan.configurations}
    if not gone:
        return None
    drawn = ": another range has other draws" if any(not each.is_grid for each in plan.study.dimensions) else ""
    return f"{len(gone)} of the {len(begun.config_ids)} configurations there would not be planned{drawn}"


def _objection_to_longer(plan: Plan, old: int) -> str | None:
    configs = [each.config for each in plan.examples]
    if plan.study.scheduler.name == "hyperband":
        return _DEALT
    spanning = next((config.schedule.kind for config in configs if config.schedule.spans_budget), None)
    if spanning is not None:
        return f"the {spanning} schedule has no length of its own: with a longer budget every step would be another one"
    on_point = plan.unit == "steps" and all(config.evaluation.is_due(old) for config in configs)
    if plan.study.budget.target is not None and not on_point:
        return "runs may have met the target at their end, which was no evaluation point"
    return None


def _additions(found: Sequence[Difference], plan: Plan, begun: BegunStudy) -> Iterator[str]:
    changed = {path: (old, new) for path, old, new in found}
    new_ids = {each.config_id for each in plan.configurations} - begun.config_ids
    if new_ids and begun.config_ids:
        word = "configuration" if len(new_ids) == 1 else "configurations"
        yield f"{len(new_ids)} {word} beside the {len(begun.config_ids)} that are there"
    if "samples" in changed and plan.study.searcher.name != "plan":
        yield f"samples: {changed['samples'][0]} become {changed['samples'][1]}"
    if "resources.cpus" in changed:
        old, new = changed["resources.cpus"]
        yield f"threads: {old} become {new}, which changes the last bits of what is trained from here on"
    if "resources.workers" in changed:
        old, new = changed["resources.workers"]
        yield f"workers: {old} become {new}, which changes last bits and dropout masks of what is trained from here on"
    if "seeds" in changed and len(changed["seeds"][0]) < len(changed["seeds"][1]):
        yield f"seeds: {len(changed['seeds'][0])} become {len(changed['seeds'][1])}"
    if "budget.amount" in changed:
        yield "budget: {:,} become {:,} {}".format(*changed["budget.amount"], plan.unit_name)
    if "budget.wall_clock" in changed:
        old, new = changed["budget.wall_clock"]
        yield f"cap: {old:,} seconds, now {'none' if new is None else format(new, ',')}"
    yield from _confirmation_additions(begun.study.get("confirm"), plan)
    if {"budget.amount", "budget.wall_clock"} & changed.keys() and (lost := _without_checkpoint(begun.directory)):
        yield f"{lost} runs have no checkpoint any more and train again from the start, to the same numbers"


def _confirmation_additions(before: Mapping[str, Any] | None, plan: Plan) -> Iterator[str]:
    confirm = plan.study.confirm
    if confirm is None:
        if before:
            yield "nothing is confirmed any more; what was stays in the tables"
    elif not before or (before["top"], len(before["seeds"])) != (confirm.top, confirm.seeds):
        yield f"confirmation of the best {confirm.top} with {confirm.seeds} fresh seeds each"


def _without_checkpoint(directory: Path) -> int:
    """Runs that came to the end of their budget and whose checkpoints are gone."""
    done = load(directory).runs.filter("ended_by IN ('budget', 'wall_clock')").select("run_id").fetchall()
    return sum(not any((directory / "checkpoints" / run_id).glob(f"step-*/{COMPLETE}")) for (run_id,) in done)
