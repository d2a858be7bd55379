"""`compare A B`: what differs between two runs, in settings, numbers, curves and answers. Prints Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.character_streams.nanogpt.run_folder import differences
from trainables.character_streams.nanogpt.run_view import SHARES, RunView, code, percent, read_run, shown
from trainables.language.markdown import table

ANSWERS = 8
"""Answers that are shown side by side."""
POINTS = 9
"""Evaluations in the table of curves."""


def compare(first: Path, second: Path, picture: Path) -> str:
    """Compares two runs, draws their curves into `picture` and returns the text.

    Raises:
        RungError: one of them is no run.
        StorageError: the picture cannot be written.
    """
    from trainables.character_streams.nanogpt.curves import write_curves

    left, right = read_run(first), read_run(second)
    names = [str(first), str(second)]
    write_curves([left, right], picture)
    parts = [
        f"# {names[0]} and {names[1]}",
        "## Settings that differ",
        _settings(left, right, names),
        "## Numbers",
        _numbers(left, right, names),
        "## Curves",
        f"![curves]({picture})",
        _curves(left, right, names),
        "## Answers",
        _answers(left, right, names),
    ]
    return "\n\n".join(parts)


def _settings(left: RunView, right: RunView, names: list[str]) -> str:
    found: dict[str, tuple[object, object]] = dict(differences(left.config, right.config))
    if left.seed != right.seed:
        found["seed"] = (left.seed, right.seed)
    left_steps, right_steps = (_iterations(run) for run in (left, right))
    if left_steps != right_steps:
        found["iterations"] = (left_steps, right_steps)
    if not found:
        return "None: the same settings and the same seed."
    return table(["setting", *names], [[name, *values] for name, values in found.items()])


def _numbers(left: RunView, right: RunView, names: list[str]) -> str:
    runs = (left, right)
    rows = [
        ["status", *(run.status for run in runs)],
        ["parameters", *(f"{run.parameters:,}" for run in runs)],
        ["iterations", *(f"{_iterations(run):,}" for run in runs)],
        ["seconds, with evaluation", *(shown(run.seconds, 1) for run in runs)],
        ["lowest val loss", *(shown((run.best or {}).get("val/loss")) for run in runs)],
        ["at iteration", *(shown((run.best or {}).get("iter"), 0) for run in runs)],
        ["last val loss", *(shown((run.last or {}).get("val/loss")) for run in runs)],
    ]
    for name, label in SHARES.items():
        values = [(run.last or {}).get(name) for run in runs]
        if any(value is not None for value in values):
            rows.append([f"{label}, last", *map(percent, values)])
    return table(["", *names], rows)


def _curves(left: RunView, right: RunView, names: list[str]) -> str:
    """Validation loss and accuracy at iterations that both have."""
    by_step = [{int(row["iter"] or 0): row for row in run.evaluations} for run in (left, right)]
    shared = sorted(by_step[0].keys() & by_step[1].keys())
    if not shared:
        return "They were not evaluated at the same iterations."
    places = sorted({round(index * (len(shared) - 1) / (POINTS - 1)) for index in range(POINTS)})
    rows = [
        [
            step,
            *(shown(rows[step]["val/loss"]) for rows in by_step),
            *(percent(rows[step].get("val/accuracy")) for rows in by_step),
        ]
        for step in (shared[place] for place in places)
    ]
    header = ["iteration", *(f"val loss {name}" for name in names), *(f"answers right {name}" for name in names)]
    return table(header, rows)


def _answers(left: RunView, right: RunView, names: list[str]) -> str:
    from trainables.character_streams.nanogpt.sampling import answers_of

    if not (left.has_model and right.has_model):
        return "A model is missing: it is written at the first evaluation after iteration 0."
    columns = [_by_prompt(answers_of(run.config, run.seed, run.folder, ANSWERS * 4)) for run in (left, right)]
    prompts = [prompt for prompt in columns[0] if prompt in columns[1]][:ANSWERS]
    if not prompts:
        return "Their lines have no prompts in common: use `sample` on each."
    return table(["prompt", *names], [[code(prompt), *(column[prompt] for column in columns)] for prompt in prompts])


def _by_prompt(answers: Sequence[tuple[str, str, bool]]) -> dict[str, str]:
    return {prompt: f"{code(answer)} {'right' if right else 'wrong'}" for prompt, answer, right in answers}


def _iterations(run: RunView) -> int:
    return int((run.rows[-1]["iter"] or 0) if run.rows else 0)
