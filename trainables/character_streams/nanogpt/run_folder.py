"""The files of a run in its `out_dir`. Imports no torch.

config.json         configuration (paths within the experiment's folder relative to it), nanoGPT's keys, seed, model
                    size, launches
metrics.csv         live
model.safetensors   the weights alone: the best so far, or the newest with always_save_checkpoint
summary.json        status, iterations, seconds, last and best numbers
checkpoints/        what an interrupted run goes on from: model, optimizer, generator, position in the data
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError, StorageError
from rung.provenance import launch_record
from rung.results.files import replace_file
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.trainable import CharacterStreams
from trainables.language.dotted import changes

CONFIG, SUMMARY, MODEL, CHECKPOINTS = "config.json", "summary.json", "model.safetensors", "checkpoints"

PATHS = ("data", "initial_weights")
"""Settings that name files."""

CHANGEABLE = (
    "schedule",
    "optimizer.learning_rate",
    "gradient_clip",
    "evaluation",
    "evaluation_tokens",
    "evaluation_batch_size",
    "answers",
    "shown",
    "accumulation",
    "precision",
    "compile",
    "initial_weights",
)
"""What may be another value when a run is resumed."""


@dataclass(frozen=True)
class Record:
    """What `config.json` says."""

    config: CharacterStreamsConfig
    seed: int
    keys: Mapping[str, Any]
    launches: list[dict[str, Any]]


def read_record(out_dir: Path) -> Record | None:
    """The run of a folder; None if there is none.

    Raises:
        StorageError: it cannot be read.
    """
    path = out_dir / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = CharacterStreamsConfig.model_validate({**content["config"], **_found(content["config"], out_dir)})
        return Record(config, int(content["seed"]), content["keys"], content["launches"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def write_record(
    out_dir: Path,
    config: CharacterStreamsConfig,
    seed: int,
    keys: Mapping[str, Any],
    threads: int,
    before: Record | None,
) -> None:
    """Writes `config.json`; the launches of a run that is resumed stay on record.

    Raises:
        StorageError: it cannot be written.
    """
    workload = CharacterStreams.workload(config)
    content = {
        "config": {**config.model_dump(mode="json"), **_kept(config, out_dir)},
        "seed": seed,
        "keys": dict(keys),
        "parameters": workload.parameters,
        "vocabulary": CharacterStreams.vocabulary(config),
        "launches": [*(before.launches if before else []), launch_record(threads)],
    }
    write_json(out_dir / CONFIG, content)


def _kept(config: CharacterStreamsConfig, out_dir: Path) -> dict[str, str]:
    """The paths of a configuration as they are written: relative to the experiment's folder (the working directory),
    so that it can be moved, if both they and the run lie in it."""
    experiment = Path.cwd()
    if not out_dir.resolve().is_relative_to(experiment):
        return {}
    paths = {name: Path(value) for name in PATHS if (value := getattr(config, name)) is not None}
    return {name: str(path.relative_to(experiment)) for name, path in paths.items() if path.is_relative_to(experiment)}


def _found(written: Mapping[str, Any], out_dir: Path) -> dict[str, str]:
    """Where the relative paths among them are now: in the folder of the run or the nearest above it
    that has them."""
    found = {}
    folders = [out_dir.resolve(), *out_dir.resolve().parents]
    for name in PATHS:
        if written.get(name) is not None:
            places = (folder / written[name] for folder in folders)
            found[name] = str(next((place.resolve() for place in places if place.exists()), written[name]))
    return found


def write_json(path: Path, content: Any) -> None:
    """Writes a file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    replace_file(path, json.dumps(content, indent=2).encode())


def read_summary(out_dir: Path) -> dict[str, Any]:
    """`summary.json`; empty while there is none."""
    try:
        summary: dict[str, Any] = json.loads((out_dir / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {out_dir / SUMMARY}: {error}") from error
    return summary


def differences(before: CharacterStreamsConfig, now: CharacterStreamsConfig) -> dict[str, tuple[Any, Any]]:
    """The dotted fields in which two configurations differ, by name, with both values."""
    return dict(sorted(changes(before.model_dump(mode="json"), now.model_dump(mode="json")).items()))


def check_resumable(out_dir: Path, before: Record, config: CharacterStreamsConfig, seed: int) -> list[str]:
    """Notes on what a resumed run does otherwise from here on.

    Raises:
        RungError: it would be another run.
    """
    found = differences(before.config, config)
    refused = [name for name in found if not name.startswith(CHANGEABLE)]
    if before.seed != seed:
        refused.append("seed")
        found["seed"] = (before.seed, seed)
    if refused:
        listed = ", ".join(f"{name} {found[name][0]} -> {found[name][1]}" for name in refused)
        raise RungError(
            f"{out_dir} holds another run ({listed}): choose another out_dir, or init_from=scratch to begin anew"
        )
    return [f"{name} is {new} from here on, and was {old}" for name, (old, new) in found.items()]
