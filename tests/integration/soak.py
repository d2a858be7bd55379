"""Kills a study's driver, its training processes and a node of its Ray cluster, again and again, and checks the end.

    python -m tests.integration.soak --kills 100 --seed 0 --log logs/soak.log      (make soak: half an hour)

One study after another runs on a two-node Ray cluster on this machine, by synchronous halving and by ASHA in turn.
At random moments something is killed with -9; a dead driver is started again with the same command, until its sweep
ends with return code 0. Studies follow each other until the kills are used up. What each has left is then compared
with the same study without any kill: see `check`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow.parquet as pq
import yaml

from rung.locks import FileLock
from rung.results.damage import damaged_files, find_damage
from rung.results.parts import COMPACTED, Part, parts
from rung.results.query import load
from rung.results.views import dicts
from tests.integration.cluster import TwoNodes

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "gradient_norm", "batch/mse")
CHECKPOINT_SECONDS = 0.2

Victim = Literal["driver", "trial", "node"]
Key = tuple[str, int]
"""Run and step: what a row of the table `metrics` is about."""
Numbers = dict[Key, tuple[Any, ...]]
Row = dict[str, Any]

STUDY: dict[str, Any] = {
    "study": "soak",
    "trainable": "tests.toy:Toy",
    "base": {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}, "seconds_per_step": 0.05},
    "space": {"optimizer.learning_rate": {"grid": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]}},
    "seeds": 3,
    "budget": {"steps": 80},
    "metric": {"name": "validation/loss", "mode": "min"},
    "scheduler": {"name": "synchronous_halving", "grace": 10, "reduction_factor": 2},
    "checkpoints": {"seconds": CHECKPOINT_SECONDS},
    "failures": {"retries": 1000},
}
"""Six configurations of three runs."""


@dataclass(frozen=True)
class Kill:
    """One kill, and what was on disk just after it."""

    seconds: float
    """Since the beginning of the sweep."""
    victim: Victim
    pid: int
    doing: str
    parts: int
    rows: int
    ended: int
    """Runs that had come to their end."""


@dataclass
class Sweep:
    """One study under fire.

    Args:
        study: the study file.
        directory: where its results go.
        environment: of the driver.
        cluster: what it runs on.
        random: decides on victims and moments.
        log: called with a line for every event.
    """

    study: Path
    directory: Path
    environment: dict[str, str]
    cluster: TwoNodes
    random: random.Random
    log: Callable[[str], None]
    kills: list[Kill] = field(default_factory=list)
    launches: int = 0
    surprises: list[str] = field(default_factory=list)
    """Ends of the driver that were neither success nor our doing."""
    seen: Numbers = field(default_factory=dict)
    """Every row that was on disk at some kill."""
    contradictions: dict[str, None] = field(default_factory=dict)
    """What rows said against each other as they lay on disk at some kill, each once."""
    largest: int = 0
    """Most bytes that the study's directory held at a kill."""
    _driver: subprocess.Popen[bytes] | None = None
    _rows: dict[Path, list[Row]] = field(default_factory=dict)
    """Of every part that was there at some kill."""
    _began: float = field(default_factory=time.monotonic)

    def run(self, kills: int, seconds: float, victims: tuple[Victim, ...] = ()) -> None:
        """Takes the sweep to its end, with at most `kills` kills in at most `seconds`.

        `victims` are killed in their order; otherwise chance decides. Raises TimeoutError.
        """
        try:
            while not self._has_ended():
                if time.monotonic() - self._began > seconds:
                    raise TimeoutError(f"the sweep has not ended after {seconds:.0f} s; see {self._output()}")
                if len(self.kills) < kills and self._wait_for_the_moment():
                    self._kill(victims[len(self.kills)] if victims else self._choose())
                else:
                    time.sleep(0.05)
        finally:
            if self._driver is not None and self._driver.poll() is None:
                self._driver.kill()
                self._driver.wait()

    def _has_ended(self) -> bool:
        """Whether the driver has ended with success; starts it if it is dead otherwise."""
        code = None if self._driver is None else self._driver.poll()
        if self._driver is not None and code is None:
            return False
        if code == 0:
            return True
        if code is not None and code != -signal.SIGKILL:
            self.surprises.append(f"launch {self.launches} ended with {code}: {self._output().read_text()[-2000:]}")
            self.log(f"  SURPRISE {self.surprises[-1]}")
            if len(self.surprises) > 5:
                raise RuntimeError(f"the driver ends by itself again and again: {self.surprises[-1]}")
        self.launches += 1
        with open(self._output(), "wb") as output:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "rung", "run", str(self.study)],
                cwd=self.study.parent,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return False

    def _output(self) -> Path:
        return self.study.parent / f"{self.study.stem}-driver-{self.launches:03}.log"

    def _wait_for_the_moment(self) -> bool:
        """Waits for a random moment: mostly some rows after the last kill, sometimes just a random time, so that
        starting and ending are hit as well. False if the driver ended by itself meanwhile."""
        by_clock = self.random.random() < 0.2
        rows, pause = self.random.randint(1, 4), self.random.uniform(0, 6 if by_clock else 1)
        before, until = self._count_parts(), time.monotonic() + 40
        while not by_clock and self._count_parts() < before + rows and time.monotonic() < until:
            if self._driver is None or self._driver.poll() is not None:
                return False
            time.sleep(0.02)
        time.sleep(pause)
        return self._driver is not None and self._driver.poll() is None

    def _choose(self) -> Victim:
        return self.random.choices(("driver", "trial", "node"), (3, 5, 2))[0]  # type: ignore[return-value]

    def _kill(self, victim: Victim) -> None:
        trials = training_processes(self.cluster)
        if victim == "trial" and trials:
            process, doing = self.random.choice(trials)
            with suppress(psutil.NoSuchProcess):
                process.kill()
            self._note(victim, process.pid, doing)
        elif victim == "node":
            self._note(victim, self.cluster.lose_node(), f"{len(trials)} training processes on two nodes")
            time.sleep(self.random.uniform(0, 3))
            self.cluster.replace_node()
        else:
            assert self._driver is not None
            doing = f"{len(trials)} training processes"
            self._driver.kill()
            self._driver.wait()
            self._note("driver", self._driver.pid, doing)

    def _note(self, victim: Victim, pid: int, doing: str) -> None:
        self._remember_rows()
        self.largest = max(self.largest, size_of(self.directory))
        ended = sum(row["status"] != "running" for row in dicts(load(self.directory).runs)) if self._rows else 0
        seconds = time.monotonic() - self._began
        kill = Kill(seconds, victim, pid, doing, self._count_parts(), len(self.seen), ended)
        self.kills.append(kill)
        self.log(
            f"  {kill.seconds:7.1f} s  kill {len(self.kills):3}  {victim:6} pid {pid:<7} launch {self.launches:3}  "
            f"{kill.parts:4} parts {kill.rows:5} rows {kill.ended:3} ended  {doing}"
        )

    def _count_parts(self) -> int:
        return sum(1 for _ in (self.directory / "tables" / "metrics").glob("*.parquet"))

    def _remember_rows(self) -> None:
        """What is on disk now must be there at the end. Parts never change, so each is read once."""
        there: dict[Part, list[Row]] = {}
        for part in parts(self.directory, "metrics"):
            with suppress(FileNotFoundError):  # it has just moved into a compacted part
                if part.path not in self._rows:
                    self._rows[part.path] = pq.read_table(part.path).to_pylist()
                    self.seen.update(numbers_of(self._rows[part.path]))
                there[part] = self._rows[part.path]
        self.contradictions |= dict.fromkeys(contradictions(there))


def training_processes(cluster: TwoNodes) -> list[tuple[psutil.Process, str]]:
    """Processes of trials, with what Ray says that they are doing."""
    found = []
    for process in cluster.processes():
        with suppress(psutil.Error):
            title = " ".join(process.cmdline()).strip()
            if re.search(r"ray::(ConfigurationTrial|\w*Trainable)", title):
                found.append((process, title))
    return sorted(found, key=lambda each: each[0].pid)


# ---------------------------------------------------------------------------------------------------- what is checked


def numbers_of(rows: list[Row]) -> Numbers:
    """What rows of the table `metrics` say, times aside."""
    return {(row["run_id"], row["step"]): tuple(row.get(name) for name in METRICS) for row in rows}


def contradictions(there: Mapping[Part, list[Row]]) -> Iterator[str]:
    """What is wrong with rows of the table `metrics` as they lie in its parts, before readers leave out what an earlier
    attempt wrote: a row that one attempt wrote twice, and attempts that came to different numbers.

    A row may lie in a part and once more in the compacted part that replaces it: a kill may come in between.
    """
    written: dict[tuple[str, int, int], tuple[Part, Row]] = {}
    numbers: Numbers = {}
    for part in sorted(there, key=lambda part: part.writer == COMPACTED):
        for row in there[part]:
            run_id, step, attempt = row["run_id"], row["step"], row["attempt"]
            source, before = written.setdefault((run_id, step, attempt), (part, row))
            is_copy = part.writer == COMPACTED and source != part and before["reported_at"] == row["reported_at"]
            if before is not row and not is_copy:
                yield f"{run_id} step {step} stands twice, both times of attempt {attempt}"
            ((key, found),) = numbers_of([row]).items()
            if numbers.setdefault(key, found) != found:
                yield f"{run_id} step {step}: attempts differ: {numbers[key]} and {found}"


def decisions_of(directory: Path) -> set[tuple[Any, ...]]:
    """What was decided, the order aside."""
    names = ("config_id", "bracket", "level", "value", "threshold", "rank", "compared", "seeds", "decision", "reason")
    return {tuple(row[name] for name in names) for row in dicts(load(directory).decisions)}


def runs_of(directory: Path) -> dict[str, tuple[Any, ...]]:
    """How every run ended, times and places aside."""
    names = ("status", "ended_by", "step", "epoch", "tokens", "value", "best", "best_step", "diverged_step")
    return {row["run_id"]: tuple(row[name] for name in names) for row in dicts(load(directory).runs)}


def configurations_of(directory: Path) -> dict[str, str]:
    """The configurations, the times aside."""
    return {row["config_id"]: row["config_json"] for row in dicts(load(directory).configurations)}


def check(sweep: Sweep, reference: Path, same_decisions: bool) -> list[str]:
    """What is wrong with a sweep that has ended; nothing if all is well.

    Every row that was on disk at a kill is there once, and no rows contradicted each other then (`contradictions`); all
    numbers are those of `reference`, bit for bit, at every step that both reached; with `same_decisions` (synchronous
    halving) decisions and tables are those of `reference`, too. Every run has ended, every lock is free, nothing
    half-written is left, nothing was found damaged.
    """
    directory, study = sweep.directory, load(sweep.directory)
    rows = dicts(study.metrics)
    numbers, expected = numbers_of(rows), numbers_of(dicts(load(reference).metrics))
    raw = pq.read_table(directory / "tables" / "metrics").num_rows
    both = numbers.keys() & expected.keys()
    wrong = [*sweep.surprises, *sweep.contradictions]

    def expect(condition: bool, message: str) -> None:
        if not condition:
            wrong.append(message)

    expect(len(rows) == len(numbers) == raw, f"rows stand twice: {raw} in the files, {len(rows)} read")
    lost = sweep.seen.keys() - numbers.keys()
    expect(not lost, f"{len(lost)} rows that were on disk at a kill are gone: {sorted(lost)[:3]}")
    changed = [key for key, row in sweep.seen.items() if key in numbers and numbers[key] != row]
    expect(not changed, f"{len(changed)} rows have changed since a kill: {changed[:3]}")
    different = [key for key in both if numbers[key] != expected[key]]
    expect(not different, f"{len(different)} of {len(both)} rows differ from the uninterrupted sweep: {different[:3]}")
    expect(len(both) > 100, f"only {len(both)} rows could be compared with the uninterrupted sweep")
    statuses = Counter(row["status"] for row in dicts(study.runs))
    expect(set(statuses) <= {"completed", "stopped"}, f"runs have not ended well: {dict(statuses)}")
    if same_decisions:
        expect(numbers == expected, f"{len(numbers.keys() ^ expected.keys())} rows are in one of the sweeps only")
        expect(decisions_of(directory) == decisions_of(reference), "decisions differ from the uninterrupted sweep")
        expect(runs_of(directory) == runs_of(reference), "runs ended otherwise than in the uninterrupted sweep")
        expect(configurations_of(directory) == configurations_of(reference), "the configurations differ")
    wrong += left_behind(directory)
    return wrong


def left_behind(directory: Path) -> Iterator[str]:
    """What a sweep that has ended must not leave: held locks, scratch, torn and superfluous files, damage."""
    for path in [directory / "lock", *directory.glob("checkpoints/*.lock")]:
        try:
            FileLock(path, wait=0).release()
        except Exception as error:
            yield f"a lock is held: {error}"
    for path in [*directory.rglob("*.tmp"), *directory.rglob("*.probe"), *directory.glob(".tune")]:
        yield f"left behind: {path}"
    for path in directory.glob("tables/*"):
        if len(list(path.iterdir())) > 1:
            yield f"not compacted: {sorted(each.name for each in path.iterdir())}"
    best = load(directory).summary()[0].config_id
    for path in directory.glob("checkpoints/*/*"):
        if not path.parent.name.startswith(best):
            yield f"a checkpoint that nobody asked for: {path}"
    yield from (str(damage) for damage in find_damage(directory))
    yield from (f"set aside: {path}" for path in damaged_files(directory))


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


# ------------------------------------------------------------------------------------------------------- the long one


def environment_of(directory: Path) -> dict[str, str]:
    """What drivers and Ray's processes are given."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
        "RUNG_STORAGE": str(directory / "results"),
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }


def write_study(directory: Path, name: str, scheduler: str) -> Path:
    """The study file of one sweep."""
    path = directory / f"{name}.yaml"
    rule = {"name": scheduler} if scheduler == "fifo" else {**STUDY["scheduler"], "name": scheduler}
    path.write_text(yaml.safe_dump({**STUDY, "study": name, "scheduler": rule}, sort_keys=False))
    return path


def soak(directory: Path, kills: int, seed: int, log: Callable[[str], None], seconds: float) -> list[str]:
    """Runs studies under fire until `kills` kills are done; returns what was wrong. Ends within about `seconds`."""
    chance, began = random.Random(seed), time.monotonic()
    environment = environment_of(directory)
    rules = ("synchronous_halving", "asha")
    # Every run to its end gives numbers to compare with; the rule's own decisions need the rule.
    references = {"synchronous_halving": "synchronous_halving", "asha": "fifo"}
    wrong: list[str] = []
    sweeps: list[tuple[str, Sweep]] = []
    with TwoNodes(1, environment) as cluster:
        environment["RAY_ADDRESS"] = cluster.address

        def sweep_of(name: str, scheduler: str) -> Sweep:
            path, results = write_study(directory, name, scheduler), directory / "results" / name
            return Sweep(path, results, environment, cluster, chance, log)

        for scheduler in references.values():
            log(f"uninterrupted: {scheduler}")
            reference = sweep_of(f"uninterrupted-{scheduler}", scheduler)
            reference.run(0, 600)
            wrong += [f"uninterrupted {scheduler}: {each}" for each in left_behind(reference.directory)]
            log(f"  {time.monotonic() - reference._began:7.1f} s  ended")
        while sum(len(sweep.kills) for _, sweep in sweeps) < kills:
            scheduler = rules[len(sweeps) % 2]
            sweep = sweep_of(f"soak-{len(sweeps) + 1}", scheduler)
            sweeps.append((scheduler, sweep))
            log(f"sweep {len(sweeps)}: {scheduler}")
            left = kills - sum(len(each.kills) for _, each in sweeps)
            try:
                sweep.run(left, seconds - (time.monotonic() - began))
                reference = directory / "results" / f"uninterrupted-{references[scheduler]}"
                found = check(sweep, reference, same_decisions=scheduler == "synchronous_halving")
            except (TimeoutError, RuntimeError) as error:
                wrong.append(f"sweep {len(sweeps)}: {error}")
                break
            wrong += [f"sweep {len(sweeps)}: {each}" for each in found]
            log(f"  {time.monotonic() - sweep._began:7.1f} s  ended; {'; '.join(found) or 'all checks passed'}")
    wrong += [f"a process is left: {each}" for each in cluster.left()]
    for line in summary(sweeps, wrong, time.monotonic() - began):
        log(line)
    return wrong


def summary(sweeps: list[tuple[str, Sweep]], wrong: list[str], seconds: float) -> Iterator[str]:
    """The table at the end of the log, as Markdown."""
    yield ""
    yield "| sweep | scheduler | kills | driver | trial | node | launches | rows seen at kills | seconds | largest MB |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    total: Counter[str] = Counter()
    for number, (scheduler, sweep) in enumerate(sweeps, start=1):
        by_victim = Counter(kill.victim for kill in sweep.kills)
        total.update(by_victim)
        last = sweep.kills[-1].seconds if sweep.kills else 0.0
        yield (
            f"| {number} | {scheduler} | {len(sweep.kills)} | {by_victim['driver']} | {by_victim['trial']} "
            f"| {by_victim['node']} | {sweep.launches} | {len(sweep.seen)} | {last:.0f} | {sweep.largest / 1e6:.1f} |"
        )
    counts = ", ".join(f"{count} of a {victim}" for victim, count in sorted(total.items()))
    yield ""
    yield f"{total.total()} kills ({counts}) in {len(sweeps)} sweeps, {seconds / 60:.1f} minutes: " + (
        "all checks passed" if not wrong else f"{len(wrong)} checks failed"
    )
    yield from (f"WRONG: {each}" for each in wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often something is killed")
    parser.add_argument("--seed", type=int, default=0, help="decides on victims and moments")
    parser.add_argument("--log", type=Path, help="where the log goes beside the terminal")
    parser.add_argument("--directory", type=Path, help="where the studies go, and stay; otherwise a temporary place")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which it gives up")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(1))  # so that the driver and the cluster end as well
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="rung-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    if arguments.log is not None:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
    file = arguments.log.open("w") if arguments.log else None

    def log(line: str) -> None:
        print(line, flush=True)
        if file is not None:
            print(line, file=file, flush=True)

    print(f"studies in {directory}", flush=True)
    log(f"plan: {arguments.kills} kills, seed {arguments.seed}, at most {arguments.minutes:g} minutes")
    wrong = soak(directory.resolve(), arguments.kills, arguments.seed, log, 60 * arguments.minutes)
    if arguments.directory is None and not wrong:
        shutil.rmtree(directory)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
