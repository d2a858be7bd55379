"""The key `tracking` of a study file: where else than in its own tables a study can be watched.

    tracking: {wandb: {project: grokking, tags: [homework]}}

The tables stay the truth; a tracker shows a copy of them (`rung.wandb`), and nothing that happens to it reaches a run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from rung.settings import StrictModel

if TYPE_CHECKING:
    from rich.console import Console

Mode = Literal["online", "offline", "disabled"]

Tag = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""W&B takes no longer ones."""


class WandbChoice(StrictModel):
    """Weights & Biases: one W&B run for each run, grouped by configuration."""

    project: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")
    """W&B project. Empty: the environment variable WANDB_PROJECT, else the name of the pipeline, or of the study."""
    entity: str | None = Field(default=None, min_length=1)
    """User or team that the project belongs to. Empty: WANDB_ENTITY, else the default of the key's owner."""
    mode: Mode | None = None
    """`online` sends rows while the study runs, `offline` writes them into files for a later `rung wandb sync`. Empty:
    `online` if this machine has a key (WANDB_API_KEY or ~/.netrc), else `offline`. WANDB_MODE goes before both."""
    tags: tuple[Tag, ...] = ()
    """More tags, beside those of the study and its trainable."""
    notes: str | None = None
    """Put before the notes of every run."""
    samples: int = Field(default=100, ge=0)
    """Texts that a model wrote: at most so many of each step at which it was asked; 0: none."""


class TrackingChoice(StrictModel):
    """Trackers beside the study's own tables."""

    wandb: WandbChoice | None = None
    """Weights & Biases; empty: off, `{}`: on, with the defaults."""


def tracked(choice: TrackingChoice, directory: Path, console: Console) -> AbstractContextManager[Any]:
    """While the block runs, what the study in `directory` writes is shown elsewhere, too, if it wants that.

    Entering and leaving never raise, and only leaving takes time: until what is left has been sent.
    """
    if choice.wandb is None:
        return nullcontext()
    from rung.wandb.launcher import Follower

    return Follower(directory, console)
