"""What the W&B run of a run is called: its id, group, job type, name, configuration, tags and notes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.results.pipeline import FILE
from rung.study import SOLO_SUFFIX
from rung.tracking import WandbChoice
from rung.trainable import find_trainable

Row = Mapping[str, Any]

LONGEST_TAG, LONGEST_GROUP = 64, 128
"""W&B refuses longer ones."""


@dataclass(frozen=True)
class Description:
    """A W&B run, but for its rows."""

    wandb_id: str
    group: str
    job_type: str
    name: str
    config: Mapping[str, Any]
    tags: tuple[str, ...]
    notes: str


@dataclass(frozen=True)
class Stage:
    """The place of a study in a pipeline."""

    pipeline: str
    name: str


def stage_of(directory: Path) -> Stage | None:
    """The stage that a study's folder holds; None: it is in no pipeline."""
    for path in sorted(directory.parent.glob(f"*/{FILE}")):
        try:
            record = json.loads(path.read_text())
            stages = [each["study"] for each in record["stages"] if directory.name in each["folders"]]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a damaged record costs a name only
        if stages:
            return Stage(record["pipeline"], stages[0])
    return None


def default_project(study: Mapping[str, Any], stage: Stage | None) -> str:
    """The W&B project of a study that names none."""
    return stage.pipeline if stage else str(study["study"]).removesuffix(SOLO_SUFFIX)


def describe(
    study: Mapping[str, Any], birth: str, stage: Stage | None, choice: WandbChoice, configuration: Row, run: Row
) -> Description:
    """What W&B is told of a run.

    Args:
        study: study.json.
        birth: tells this study from another one of the same name (`StudyTables.birth`).
        stage: its place in a pipeline.
        choice: tags and notes that the user wants.
        configuration, run: rows of the tables `configurations` and `runs`.
    """
    values = json.loads(configuration["config_json"])
    label = configuration["label"] or "base"
    key = hashlib.sha256(f"{study['study']} {birth}".encode()).hexdigest()[:8]
    told = {
        **{name: run[name] for name in ("run_id", "config_id", "phase", "seed")},
        **{name: study[name] for name in ("study", "trainable", "seeds", "budget", "metric")},
        "label": label,
    }
    config_id = f" ({run['config_id']})"
    tags = [str(study["study"]), str(study["trainable"]), *([stage.pipeline] if stage else []), *choice.tags]
    replay = f"{label}, seed {run['seed']}\nrung replay {run['run_id']} --study {study['study']}"
    return Description(
        wandb_id=f"{run['run_id']}-{key}",
        group=label[: LONGEST_GROUP - len(config_id)] + config_id,
        job_type=_job_type(study, stage, run["phase"]),
        name=f"seed {run['seed']}",
        config={"seed": run["seed"], **values, "rung": told},
        tags=tuple(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags)),
        notes="\n".join(filter(None, [choice.notes, replay])),
    )


def _job_type(study: Mapping[str, Any], stage: Stage | None, phase: str) -> str:
    if str(study["study"]).endswith(SOLO_SUFFIX):
        return "train"
    if stage is None:
        return phase
    return stage.name if phase == "search" else f"{stage.name}, {phase}"


def other_names(configuration: Row) -> Mapping[str, str]:
    """What W&B calls the metrics of a configuration, where it is another name (`Trainable.tracked_as`)."""
    try:
        kind = find_trainable(configuration["trainable"])
        return kind.tracked_as(kind.Config.model_validate_json(configuration["config_json"]))
    except (RungError, ValueError):  # its code is gone, or is another one now: rung's own names do
        return {}
