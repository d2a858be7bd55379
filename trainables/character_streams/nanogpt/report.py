"""`report`: a short report of all runs of an experiment's folder, as Markdown with a picture."""

from __future__ import annotations

from pathlib import Path

from rung.errors import RungError
from rung.results.files import replace_file
from trainables.character_streams.nanogpt.run_folder import differences
from trainables.character_streams.nanogpt.run_view import SHARES, RunView, code, find_runs, percent, shown, theory_line
from trainables.character_streams.trainable import CharacterStreams
from trainables.language.markdown import table

FILE, PICTURE = "report.md", "report.png"
ANSWERS = 5
MOST_IN_PICTURE = 7


def write_report(folder: Path) -> Path:
    """Writes `report.md` and `report.png` and returns the first.

    Raises:
        RungError: there are no runs below the folder.
        StorageError: a file cannot be written.
    """
    from trainables.character_streams.nanogpt.curves import write_curves

    runs = find_runs(folder)
    if not runs:
        raise RungError(f"there are no runs below {folder}: train one first")
    names = {run.folder: str(run.folder.relative_to(folder)) for run in runs}
    ranked = sorted(runs, key=lambda run: (run.best or {}).get("val/loss") or float("inf"))
    write_curves(ranked[:MOST_IN_PICTURE], folder / PICTURE)
    parts = [
        f"# {folder.resolve().name}",
        _sentence(ranked, names),
        _numbers(ranked, names),
        f"![curves]({PICTURE})",
        _theory(ranked[0]),
        "## What was changed",
        _changes(runs, names),
        "## What the models answer",
        *[_answers(run, names[run.folder]) for run in ranked],
    ]
    replace_file(folder / FILE, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return folder / FILE


def _sentence(ranked: list[RunView], names: dict[Path, str]) -> str:
    best = ranked[0]
    loss = shown((best.best or {}).get("val/loss"))
    count = f"{len(ranked)} runs" if len(ranked) > 1 else "One run"
    lowest = f"The lowest validation loss is {loss} ({names[best.folder]})."
    return f"{count}. {lowest} Every run has one seed: a small difference means nothing."


def _numbers(ranked: list[RunView], names: dict[Path, str]) -> str:
    shares = [name for name in SHARES if any((run.last or {}).get(name) is not None for run in ranked)]
    header = ["run", "status", "parameters", "iterations", "minutes", "lowest val loss"]
    rows = []
    for run in ranked:
        last, best = run.last or {}, run.best or {}
        rows.append(
            [
                names[run.folder],
                run.status,
                f"{run.parameters:,}",
                shown(last.get("iter"), 0),
                shown(None if run.seconds is None else run.seconds / 60, 1),
                shown(best.get("val/loss")),
                *(percent(last.get(name)) for name in shares),
            ]
        )
    return table([*header, *(SHARES[name] for name in shares)], rows)


def _theory(run: RunView) -> str:
    lines = CharacterStreams.references(run.config).get("validation/loss", ())
    return "Theory, nats per character: " + "; ".join(map(theory_line, lines)) + "." if lines else ""


def _changes(runs: list[RunView], names: dict[Path, str]) -> str:
    """Every run against the one that was started first."""
    first = min(runs, key=lambda run: (run.folder / "config.json").stat().st_mtime)
    rows = []
    for run in runs:
        found: dict[str, tuple[object, object]] = dict(differences(first.config, run.config))
        if run.seed != first.seed:
            found["seed"] = (first.seed, run.seed)
        texts = [f"{name} {old} -> {new}" for name, (old, new) in found.items()]
        rows.append([names[run.folder], "; ".join(texts) or ("(the first)" if run is first else "nothing")])
    return table(["run", "against " + names[first.folder]], rows)


def _answers(run: RunView, name: str) -> str:
    from trainables.character_streams.nanogpt.sampling import answers_of

    answers = answers_of(run.config, run.seed, run.folder, ANSWERS) if run.has_model else ()
    if not answers:
        return ""
    rows = [[code(prompt), code(answer), "right" if right else "wrong"] for prompt, answer, right in answers]
    return f"### {name}\n\n" + table(["prompt", "answer", ""], rows)
