"""A finished or running experiment run, read from its folder, for `compare` and `report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.trainable import Reference
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.nanogpt.metrics_csv import FILE
from trainables.character_streams.nanogpt.run_folder import CONFIG, MODEL, read_record, read_summary
from trainables.language.metrics_csv import Row, read_metrics

SHARES = {
    "val/accuracy": "answers right",
    "val/character_accuracy": "characters right",
    "val/length_accuracy": "lengths right",
}


@dataclass(frozen=True)
class RunView:
    """What is known of a run."""

    folder: Path
    config: CharacterStreamsConfig
    seed: int
    rows: Sequence[Row]
    summary: dict[str, Any]
    parameters: int

    @property
    def evaluations(self) -> list[Row]:
        """The rows with an evaluation."""
        return [row for row in self.rows if row.get("val/loss") is not None]

    @property
    def best(self) -> Row | None:
        """The evaluation with the lowest validation loss."""
        return min(self.evaluations, key=lambda row: row["val/loss"] or 0.0, default=None)

    @property
    def last(self) -> Row | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training and evaluation, the last evaluation included, which the last row cannot know of: what
        `train` prints at the end. Of a run that has not come to its end, those up to the last row."""
        known = [self.summary.get("wall_seconds"), *(row.get("wall_seconds") for row in self.rows[-1:])]
        return max((seconds for seconds in known if seconds is not None), default=None)

    @property
    def status(self) -> str:
        """`running` also stands for a run that was interrupted."""
        return str(self.summary.get("status", "running"))

    @property
    def has_model(self) -> bool:
        """Whether it can be asked."""
        return (self.folder / MODEL).is_file()


def read_run(folder: Path) -> RunView:
    """The run in a folder.

    Raises:
        RungError: there is none.
    """
    from trainables.character_streams.trainable import CharacterStreams

    record = read_record(folder)
    if record is None or not (folder / FILE).is_file():
        raise RungError(f"{folder} holds no run ({CONFIG} and {FILE}): give the out_dir of one")
    parameters = CharacterStreams.workload(record.config).parameters
    return RunView(folder, record.config, record.seed, read_metrics(folder / FILE), read_summary(folder), parameters)


def find_runs(folder: Path) -> list[RunView]:
    """Every run below a folder, by name."""
    return [read_run(path) for path in _run_folders(folder)]


def neighbours(folder: Path) -> list[Path]:
    """The run in a folder and those in the folders beside it, by name."""
    beside = sorted(folder.resolve().parent.iterdir())
    return [path for path in beside if (path / CONFIG).is_file() and (path / FILE).is_file()]


def _run_folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob(CONFIG)):
        if (path.parent / FILE).is_file() and "checkpoints" not in path.parts:
            yield path.parent


def shown(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.1f} %"


def theory_line(line: Reference) -> str:
    """What theory says, with its number."""
    return f"{line.label} ({shown(line.value)})"


def code(text: str) -> str:
    """Text in Markdown as it stands, visible line ends included."""
    return "`" + text.replace("\n", "\\n").replace("`", "'") + "`" if text else "(nothing)"
