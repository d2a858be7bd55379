"""What a replay has shown: whether its numbers are those on record, where they first differ, and what else differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rung.provenance import environment_variables, file_hash, machine
from rung.tuning.retraining import Replayed
from rung.tuning.run_record import RunRecord

if TYPE_CHECKING:
    from rung.tuning.replay import Code

_LISTED = 6

_ENDED = ("completed", "diverged", "failed")
"""Statuses that a run comes to by itself. The others come from outside: nothing in a replay can lead to them."""

_STATE = ("step", "tokens", "value", "best", "best_step", "diverged_step")

_PLACES = (
    "PYTHONPATH",
    "RUNG_STORAGE",
    "RUNG_DATA",
    "RUNG_CODE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NODELIST",
    "RAY_ADDRESS",
    "TORCHINDUCTOR_CACHE_DIR",
)
"""Variables that say where something was and change no number."""


@dataclass(frozen=True)
class Difference:
    """One value that is not what is on record."""

    step: int
    name: str
    there: object
    """On record."""
    here: object
    """In the replay."""

    def describe(self) -> str:
        """In one line, with how far apart two numbers are."""
        text = f"{self.name}: {self.there!r} on record, {self.here!r} here"
        if isinstance(self.there, float) and isinstance(self.here, float):
            text += f" (difference {self.here - self.there:.3g})"
        return text


@dataclass(frozen=True)
class ReplayReport:
    """A replay compared with the record."""

    run_id: str
    reports: int
    """On record."""
    metrics: int
    """How many metrics they have."""
    differences: Sequence[Difference]
    """Of the reports, by step."""
    end: Sequence[Difference]
    """Of the run's row."""
    end_text: str
    """How the run ended, in half a sentence."""
    environment: Sequence[tuple[str, str, str]]
    """What differs between then and now: what, then, now."""

    @property
    def is_identical(self) -> bool:
        return not self.differences and not self.end

    def render(self) -> str:
        """The verdict first, then where it fails, then what may be the reason."""
        lines = [self._verdict()]
        if self.differences:
            first = self.differences[0].step
            lines += [f"  {each.describe()}" for each in self.differences if each.step == first][:_LISTED]
        lines += [f"  {each.describe()}" for each in self.end]
        if self.environment:
            lines.append("what is not as it was:")
            lines += [f"  {name}: {then} then, {now} now" for name, then, now in self.environment]
        elif not self.is_identical:
            lines.append("the environment is as it was, as far as it is on record")
        return "\n".join(lines)

    def _verdict(self) -> str:
        each = f"{self.metrics} metric{'s' * (self.metrics != 1)} each"
        counted = f"{self.reports} report{'s' * (self.reports != 1)}"
        if self.is_identical:
            return f"identical: {counted}, {each}; {self.end_text}"
        if not self.differences:
            return f"different: all {counted} are identical, {each}, but the run's row differs"
        differing = len({each.step for each in self.differences})
        return f"different: {differing} of {counted} differ, first at step {self.differences[0].step:,}"


def compare(record: RunRecord, replayed: Replayed, code: Code) -> ReplayReport:
    """Compares every report and the run's row, bit for bit; a clock's readings are left out."""
    row = record.row
    return ReplayReport(
        run_id=row["run_id"],
        reports=len(record.reports),
        metrics=len(record.metrics),
        differences=list(_report_differences(record, replayed)),
        end=list(_end_differences(row, replayed)),
        end_text=f"{row['status']} at step {row['step']:,}, value {row['value']!r}",
        environment=list(_environment_differences(record, code)),
    )


def _report_differences(record: RunRecord, replayed: Replayed) -> Iterator[Difference]:
    stored = {int(report["step"]): report for report in record.reports}
    for step in sorted(stored.keys() | replayed.reports.keys()):
        there, here = stored.get(step), replayed.reports.get(step)
        if there is None or here is None:
            yield Difference(step, "report", *("none" if side is None else "there" for side in (there, here)))
            continue
        for name in dict.fromkeys([*record.metrics, *here]):
            if there.get(name) != here.get(name):
                yield Difference(step, name, there.get(name), here.get(name))


def _end_differences(row: Mapping[str, Any], replayed: Replayed) -> Iterator[Difference]:
    state = replayed.states.get(row["step"])
    if state is None:
        state = replayed.states[max(replayed.states)]
    names = [*(("status", "ended_by") if row["status"] in _ENDED else ()), *_STATE]
    for name in names:
        if row[name] != state[name]:
            yield Difference(row["step"], name, row[name], state[name])
    if row["status"] == "failed":
        there, here = (row["error"] or "").strip().splitlines()[-1:], state["error"]
        if there != here:
            yield Difference(row["step"], "error", *(" ".join(text) or "none" for text in (there, here)))


def _environment_differences(record: RunRecord, code: Code) -> Iterator[tuple[str, str, str]]:
    launch, row = record.launch, record.row
    if launch is None:
        yield "launch", "not on record", "unknown what else differs"
        return
    if code.changed:
        yield "code", f"{launch['code']['hash']} at {_commit(launch)}", _changed(code)
    hashes = {number: launch["code"]["hash"] for number, launch in record.writers.items() if "code" in launch}
    if len(set(hashes.values())) > 1:
        written = ", ".join(f"{each} of launch {number}" for number, each in hashes.items())
        yield "code of its reports", written, "only that of the last"
    now = machine(torch.get_num_threads())
    then = {**launch, "threads": row["threads"] or launch["threads"], "host": row["host"] or launch["host"]}
    for name in ("host", "system", "processor", "gpus", "threads"):
        if then.get(name, now[name]) != now[name]:
            yield name, str(then[name]), str(now[name])
    versions = [(name, launch["versions"].get(name), now["versions"].get(name)) for name in sorted(now["versions"])]
    yield from ((name, str(old), str(new)) for name, old, new in versions if old != new and name != "rung")
    yield from _variable_differences(launch)
    yield from _data_differences(launch)


def _variable_differences(launch: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Variables that the launch had and this process has not, or another way. The thread counts are set by rung."""
    then, now = launch.get("environment", {}), environment_variables()
    for name in sorted(then.keys() | now.keys()):
        ours = name in _PLACES or name.endswith("_NUM_THREADS") or name == "OMP_WAIT_POLICY"
        if not ours and then.get(name) != now.get(name):
            yield name, then.get(name, "not set"), now.get(name, "not set")


def _data_differences(launch: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for entry in launch.get("data", ()):
        try:
            now = file_hash(Path(entry["path"]))
        except OSError as error:
            now = str(error.strerror)
        if now != entry["sha256"]:
            yield entry["path"], f"sha256 {str(entry['sha256'])[:12]}", now[:12]


def _commit(launch: Mapping[str, Any]) -> str:
    if launch.get("commit") is None:
        return "no commit"
    return f"{launch['commit'][:12]}{' with uncommitted changes' if launch['dirty'] else ''}"


def _changed(code: Code) -> str:
    files = code.changed
    return ", ".join(files[:_LISTED]) + (f" and {len(files) - _LISTED} more files" if len(files) > _LISTED else "")
