"""Opening a study's directory for a launch: what is there is checked, what is damaged set aside, the launch recorded.

`study.yaml` (as written) and `study.json` (resolved) say which study a directory holds.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from rung.configuration import resolver_of
from rung.errors import RungError
from rung.extension import begun_study, extended
from rung.plan import Plan, PlannedConfiguration
from rung.provenance import Launch, record_launch
from rung.results.confirmation import to_confirm
from rung.results.damage import Damage, find_damage, incomplete_writers, set_aside
from rung.results.files import clear_leftovers, delete_folder, replace_file
from rung.results.parts import COMPACTED
from rung.results.query import load
from rung.results.views import UnreadablePartWarning, dicts
from rung.study import Study, study_json
from rung.trainable import find_trainable
from rung.tuning.goal import goal_of
from rung.tuning.ledger import Journal, Ledger
from rung.tuning.tasks import Task, confirm_tasks, search_task


@dataclass(frozen=True)
class OpenedStudy:
    """A study that this process is the driver of."""

    directory: Path
    plan: Plan
    """As it goes on from what is there."""
    launch: Launch
    journal: Journal
    notices: tuple[str, ...]
    """What the user should know: what is new about the study, what was damaged."""
    incomplete: frozenset[str]
    """Names of tasks whose reports were lost in part."""
    decisions_lost: bool
    """Whether some decisions cannot be read."""

    @cached_property
    def search(self) -> Ledger:
        """The record of phase search."""
        seeds = self.plan.study.seeds
        tasks = [search_task(each, seeds, seeds.start) for each in self._config_ids()]
        return self._ledger(tasks, self.decisions_lost)

    def confirmation(self, config_ids: Iterable[str]) -> Ledger:
        """The record of phase confirm of some configurations."""
        study = self.plan.study
        assert study.confirm is not None
        together = study.replication == "packed"
        return self._ledger(confirm_tasks(config_ids, study.confirm.fresh_seeds, together=together))

    def confirmed_before(self) -> Ledger:
        """The record of everything that phase confirm has trained so far, whatever it is to train now."""
        seeds: dict[str, list[int]] = {}
        for row in dicts(load(self.directory).runs.filter("phase = 'confirm'").order("run_id")):
            seeds.setdefault(row["config_id"], []).append(row["seed"])
        together = self.plan.study.replication == "packed"
        tasks = [confirm_tasks([each], tuple(theirs), together=together) for each, theirs in seeds.items()]
        return self._ledger([task for some in tasks for task in some])

    def _ledger(self, tasks: Iterable[Task], decisions_lost: bool = False) -> Ledger:
        study = self.plan.study
        goal, rule = goal_of(study), study.scheduler.name
        return Ledger(self.journal, tasks, goal, rule, study.replication, self.incomplete, decisions_lost)

    def _config_ids(self) -> list[str]:
        """Planned configurations; of an adaptive search, those that have been chosen so far."""
        if self.plan.study.searcher.name == "plan":
            return [each.config_id for each in self.plan.configurations]
        rows = load(self.directory).configurations.order("plan_index").select("config_id").fetchall()
        return [config_id for (config_id,) in rows]


def check_data(plan: Plan) -> None:
    """Asks for what the runs need, before anything is started.

    Raises:
        RungError: something is not there; says what, and the command that makes it.
    """
    if plan.missing:
        raise RungError("; ".join(plan.missing))


def prepare(plan: Plan, console: Console) -> None:
    """Makes what the runs read and what can be made here (`Trainable.prepare`), and says so.

    Raises:
        RungError: it cannot be made.
    """
    kind = find_trainable(plan.study.trainable)
    kind.prepare(
        [each.config for each in plan.examples],
        lambda line: console.print(line, highlight=False, soft_wrap=True),
    )


def open_study(directory: Path, study: Study, plan: Plan, text: str) -> OpenedStudy:
    """Makes `directory` the one of this study, or goes on with what is there; records the launch.

    Raises:
        RungError: a study lives there that this one cannot go on with; names what differs.
        StorageError: the directory cannot be read or written.
    """
    clear_leftovers(directory)
    damage = find_damage(directory)
    with warnings.catch_warnings():
        if damage:  # it is named in the notices
            warnings.simplefilter("ignore", UnreadablePartWarning)
        return _open(directory, study, plan, text, damage)


def _open(directory: Path, study: Study, plan: Plan, text: str, damage: Sequence[Damage]) -> OpenedStudy:
    begun, additions = begun_study(directory), list[str]()
    if begun is not None:
        plan, additions = extended(plan, begun)
    resolved = study_json(study, plan)
    configs = [each.config for each in plan.configurations]
    launch = record_launch(directory, resolved, study.trainable, study.resources.cpus, configs)
    write_study(directory, study, plan, text)
    names = _task_names(directory, plan)
    incomplete = frozenset(incomplete_writers(directory, damage, names))
    journal = Journal(directory, study.study, launch.number)
    changed = _changed_sentence(launch) if begun is not None and begun.config_ids else None
    troubles = [each for each in (launch.problem, changed) if each]
    notices = (
        *(f"new: {each}" for each in additions),
        *troubles,
        *(f"{each}; what it held is made again" for each in damage),
    )
    decisions_lost = any(each.table == "decisions" for each in damage)
    opened = OpenedStudy(directory, plan, launch, journal, notices, incomplete, decisions_lost)
    journal.event("resume" if journal.is_resumed else "launch", plan.product)
    for addition in additions:
        journal.event("extended", addition)
    if changed:
        journal.event("code_changed", changed)
    _mend(opened, damage)
    _record_configurations(opened)
    return opened


def _changed_sentence(launch: Launch) -> str | None:
    if not launch.changed:
        return None
    more = f" and {len(launch.changed) - 4} more" if len(launch.changed) > 4 else ""
    return (
        f"not as it was at the last launch: {', '.join(launch.changed[:4])}{more}. What is trained from here on may "
        "have other numbers than what is there; `rung replay RUN_ID --present` tells for a run"
    )


def _mend(opened: OpenedStudy, damage: Sequence[Damage]) -> None:
    """Has runs trained again whose reports or decisions are gone, and only then sets the damaged parts aside: a kill in
    between costs nothing, because the next launch finds the same damage."""
    search = opened.search  # reading the ledger is what has them trained again whose reports are gone
    if opened.decisions_lost:
        rule = opened.plan.scheduler()
        for name in search.tasks:
            if search.lacks_decisions(name, rule.levels_of(name)):
                search.repeat(name, "decisions were lost with a damaged part")
    if any(each.table == "metrics" for each in damage):
        _mend_confirmation(opened, damage)
    for each, path in zip(damage, set_aside(damage), strict=True):
        opened.journal.event("part_set_aside", f"{each}; it is now {path.name}")


def _mend_confirmation(opened: OpenedStudy, damage: Sequence[Damage]) -> None:
    opened.confirmed_before()
    lost_together = {each.table for each in damage if each.writer == COMPACTED}
    if {"metrics", "runs"} <= lost_together:  # nothing says any more which runs there were
        for folder in (opened.directory / "checkpoints").glob("*-confirm"):
            delete_folder(folder)


def _task_names(directory: Path, plan: Plan) -> set[str]:
    """Everything that writes, or has written, reports."""
    names = {each.config_id for each in plan.configurations}
    results = load(directory)
    names |= {config_id for (config_id,) in results.configurations.select("config_id").fetchall()}
    names |= {run_id for (run_id,) in results.runs.filter("phase = 'confirm'").select("run_id").fetchall()}
    return names | {f"{config_id}-confirm" for config_id in _confirmed(directory)}


def _confirmed(directory: Path) -> list[str]:
    """Configurations that have runs in phase confirm."""
    runs = load(directory).runs.filter("phase = 'confirm'").select("config_id").distinct().order("config_id")
    return [config_id for (config_id,) in runs.fetchall()]


def _record_configurations(opened: OpenedStudy) -> None:
    """Writes rows of planned configurations that are new, or bear another label in a wider space."""
    stored = load(opened.directory).configurations.select("config_id, label, plan_index").fetchall()
    known = {config_id: (label, index) for config_id, label, index in stored}
    fresh = [each for each in opened.plan.configurations if known.get(each.config_id) != (each.label, each.index)]
    opened.journal.add_configurations(configuration_rows(opened.plan.study, fresh, opened.launch.number))
    opened.search.labels.update((each.config_id, each.label) for each in fresh)


def best_of_search(opened: OpenedStudy) -> list[PlannedConfiguration]:
    """The configurations to confirm, best first."""
    study = opened.plan.study
    assert study.confirm is not None
    chosen = [each.config_id for each in to_confirm(load(opened.directory).summary(), study.confirm.top)]
    planned = {each.config_id: each for each in opened.plan.configurations}
    if not planned:
        rows = dicts(load(opened.directory).configurations)
        planned = {row["config_id"]: stored_configuration(study, row) for row in rows if row["config_id"] in chosen}
    return [planned[config_id] for config_id in chosen]


def write_study(directory: Path, study: Study, plan: Plan, text: str) -> None:
    """Writes both files.

    Raises:
        StorageError: they cannot be written.
    """
    replace_file(directory / "study.yaml", text.encode())
    replace_file(directory / "study.json", json.dumps(study_json(study, plan), indent=2).encode())


def configuration_rows(
    study: Study, configurations: Iterable[PlannedConfiguration], launch: int | None = None
) -> Iterator[dict[str, object]]:
    """Rows of the table `configurations`."""
    for configuration in configurations:
        yield {
            "study": study.study,
            "trainable": study.trainable,
            "config_id": configuration.config_id,
            "label": configuration.label,
            "plan_index": configuration.index,
            "sample": configuration.sample,
            "launch": launch,
            "created_at": datetime.now(UTC),
            "config_json": configuration.config.model_dump_json(),
            **configuration.columns(),
        }


def stored_configuration(study: Study, row: Mapping[str, Any]) -> PlannedConfiguration:
    """A configuration from its row in the table `configurations`, without what its space knew of it."""
    config = resolver_of(study).model.model_validate_json(row["config_json"])
    return PlannedConfiguration(
        config_id=row["config_id"],
        label=row["label"],
        config=config,
        values=config.model_dump(mode="json"),
        swept={},
        index=row["plan_index"],
        sample=row["sample"],
    )
