"""The sections of the experiment log: what one experiment, or one study, was for, changed and came to, as Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.results.confirmation import result_rows
from rung.results.export import export
from rung.results.query import StudyResults
from rung.results.text import one_line
from rung.trainable import find_trainable
from trainables.language.dotted import changes
from trainables.language.markdown import table
from trainables.tinystories.experiment_config import DESCRIBING
from trainables.tinystories.experiment_logger import LEARNING_RATES, LOSS_CURVES
from trainables.tinystories.experiments.directory import CHECKPOINTS, METRICS, PROVENANCE, SUMMARY, Experiment
from trainables.tinystories.experiments.tables import shown

_LINKED = (METRICS, SUMMARY, LEARNING_RATES, CHECKPOINTS)
_OF_NO_INTEREST = (*DESCRIBING, "device", "log_interval", "eval_interval", "checkpoint_interval")


def experiment_section(experiment: Experiment, baseline: Mapping[str, Any], called: str, root: Path) -> str:
    """One experiment.

    Args:
        experiment: it.
        baseline: the configuration that it is compared with.
        called: the name of that.
        root: the folder that links start from.
    """
    lines = [
        f"## {one_line(experiment.name)}",
        "",
        f"* Date: {started_at(experiment.directory)[:10]}",
        f"* What is tested: {_harmless(hypothesis(experiment.config))}",
        f"* Changed from {called}: {differences(baseline, experiment.config)}",
        f"* Result: {result(experiment)}",
    ]
    folder = experiment.directory
    links = [_link(name, folder / name, root) for name in _LINKED if (folder / name).exists()]
    lines += [f"* Files: {', '.join(links)}"]
    picture = experiment.directory / LOSS_CURVES
    if picture.exists():
        lines += ["", f"!{_link(f'Losses of {one_line(experiment.name)} by step and by wall clock', picture, root)}"]
    return "\n".join([*lines, "", f"{{{{notes {experiment.name}}}}}"])


def hypothesis(config: Mapping[str, Any]) -> str:
    """What is tested, as the user said it. What a shipped configuration says of itself is no hypothesis."""
    description = config.get("description") or ""
    return "(not said)" if not description or description in _shipped_descriptions() else str(description)


@cache
def _shipped_descriptions() -> frozenset[str]:
    files = (Path(__file__).parents[1] / "configs").glob("*.json")
    return frozenset(json.loads(file.read_text())["description"] for file in files)


def study_section(study: StudyResults, root: Path) -> str:
    """One study of rung: its purpose, base, space, results over seeds, pictures."""
    described = study.study
    name, budget, metric = described["study"], described["budget"], described["metric"]
    defaults, base = _bases(described)
    table = export(result_rows(described, study.summary(), study.summary("confirm")), "markdown")
    amount = f"{budget['amount']:,} {budget['unit']}"
    lines = [
        f"## Study {one_line(name)}",
        "",
        f"* Date: {started_at(study.directory)[:10]}",
        f"* What is tested: {purpose(study.directory / 'study.yaml')}",
        f"* Trained: `{described['trainable']}`, {len(described['seeds'])} seeds, {amount} each, "
        f"judged by {metric['name']} ({metric['mode']})",
        f"* Changed from the trainable's defaults: {differences(defaults, base)}",
        f"* Swept: {', '.join(f'`{path}`' for path in described['swept']) or 'nothing'}",
        "",
        table.strip(),
    ]
    page, picture = study.directory / "report" / "report.html", study.directory / "report" / "loss_and_accuracy.png"
    if page.exists():
        lines += ["", f"Report: {_link('report.html', page, root)}"]
    if picture.exists():
        lines += ["", f"!{_link(f'Learning curves of {one_line(name)}', picture, root)}"]
    return "\n".join([*lines, "", f"{{{{notes study {name}}}}}"])


def _bases(described: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The defaults of a study's trainable and its base, both complete: an older study knows fewer fields."""
    config = find_trainable(described["trainable"]).Config
    defaults = config().model_dump(mode="json")
    try:
        return defaults, config.model_validate(described["base"]).model_dump(mode="json")
    except ValidationError:  # the code has changed since; what it said is still there
        return defaults, described["base"]


def result(experiment: Experiment) -> str:
    """The result of an experiment in one line."""
    found = experiment.statistics
    parts = [f"{experiment.status} at step {found['total_steps']:,}"]
    if experiment.status == "running":
        whole = experiment.config.get("max_iterations")
        parts = [f"unfinished, step {found['total_steps']:,}" + (f" of {whole:,}" if whole else "")]
    if validation := found.get("val_loss"):
        parts.append(f"validation loss {validation['final']:.4f}")
        parts.append(f"best {validation['best']:.4f} at step {validation['best_step']:,}")
    if train := found.get("train_loss"):
        parts.append(f"training loss {train['final']:.4f}")
    return ", ".join([*parts, _duration(found["total_wallclock_time"])])


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What differs between two configurations, in words."""
    found = [
        f"`{name}` {_plain(one)} → {_plain(other)}"
        for name, (one, other) in changes(before, after).items()
        if name.partition(".")[0] not in _OF_NO_INTEREST
    ]
    return ", ".join(found) or "nothing"


def purpose(path: Path) -> str:
    """The comment at the head of a study file, up to its first blank line."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return "(not said)"
    words = list[str]()
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        words.append(line.strip("# "))
    return _harmless(" ".join(words)) or "(not said)"


def started_at(directory: Path) -> str:
    """When an experiment or study was started (ISO, UTC): at its first launch, or else the time of its oldest file."""
    try:
        launches = json.loads((directory / PROVENANCE).read_text())["launches"]
        return str(launches[0]["started_at"])
    except (OSError, ValueError, LookupError):
        pass
    times = [each.stat().st_mtime for each in directory.iterdir() if each.is_file()]
    return datetime.fromtimestamp(min(times, default=0), UTC).isoformat()


def overview(experiments: Iterable[Experiment]) -> str:
    """A table of the experiments, best first."""
    rows = sorted(experiments, key=lambda each: each.statistics.get("val_loss", {}).get("best", float("inf")))
    header = ["experiment", "status", "steps", "best validation loss", "final", "time"]
    return table(header, [_overview_row(each) for each in rows])


def _overview_row(experiment: Experiment) -> list[str]:
    found, validation = experiment.statistics, experiment.statistics.get("val_loss", {})
    return [
        one_line(experiment.name),
        experiment.status if experiment.status != "running" else "unfinished",
        f"{found['total_steps']:,}",
        shown(validation.get("best")),
        shown(validation.get("final")),
        _duration(found["total_wallclock_time"]),
    ]


def _harmless(text: object) -> str:
    """A user's text on one line, which cannot be taken for a mark."""
    return one_line(text).replace("<!--", "&lt;!--").replace("{{", "{ {")


def _link(text: str, path: Path, root: Path) -> str:
    target = os.path.relpath(path, root).replace(" ", "%20")
    return f"[{text}]({target})"


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else one_line(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"
