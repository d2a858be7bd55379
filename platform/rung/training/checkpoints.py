"""Checkpoints of a run: safetensors and JSON, no pickle, the completion marker written last.

    <directory>/step-0000001000/tensors.safetensors   model, optimizer, gradient filter and generator
                                state.json            progress and optimizer constants
                                complete.json         marker: the sizes of the other two

A checkpoint counts only when its marker is there and the sizes agree, so that a kill in the middle of writing
leaves the one before it in force. Nothing is renamed: object stores have no cheap rename.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rung.errors import StorageError
from rung.training.run import Progress, Run
from rung.training.schedules import PlateauState

TENSORS, STATE, MARKER = "tensors.safetensors", "state.json", "complete.json"


def save_checkpoint(run: Run, directory: Path, keep: int = 1) -> Path:
    """Writes the state of `run` below `directory` and deletes all but the newest `keep` checkpoints there.

    Raises:
        StorageError: it cannot be written; the checkpoint before it is still whole.
    """
    target = _unused(directory / f"step-{run.progress.step:010d}")
    try:
        target.mkdir(parents=True)
        save_file(_tensors(run), target / TENSORS)
        _sync(target / TENSORS)
        _write_json(target / STATE, _state(run))
        sizes = {name: (target / name).stat().st_size for name in (TENSORS, STATE)}
        _write_json(target / MARKER, sizes)
        _sync(target)
        _sync(directory)
        # Only whole ones count: a torn checkpoint may well be the one with the highest step.
        kept = [path for path in _candidates(directory) if is_complete(path)][:keep]
        for old in _candidates(directory):
            if old not in kept:
                shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the checkpoint {target}: {error}") from error
    return target


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint below `directory`, or None."""
    return next((path for path in _candidates(directory) if is_complete(path)), None)


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file has the size that it says."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def load_checkpoint(run: Run, checkpoint: Path) -> None:
    """Puts `run` where it stood when `checkpoint` was written.

    Raises:
        StorageError: it is unreadable, or belongs to a model of another shape.
    """
    try:
        tensors = load_file(checkpoint / TENSORS, device=run.trainable.device)
        state = json.loads((checkpoint / STATE).read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise StorageError(f"cannot read the checkpoint {checkpoint}: {error}") from error
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "gradient_filter": {}, "generator": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    _load_model(run, parts["model"], checkpoint)
    run.optimizer.load_state_dict({"state": _unflatten(parts["optimizer"]), "param_groups": state["optimizer"]})
    run.gradient_filter.load_state(parts["gradient_filter"])
    run.generator.set_state(parts["generator"]["state"].cpu())
    run.step_metrics = state["step_metrics"]
    plateau = PlateauState(**state["progress"].pop("plateau"))
    run.progress = Progress(**state["progress"], plateau=plateau)


def save_model(run: Run, path: Path) -> None:
    """Writes the weights alone, as safetensors that any tool reads.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_model_tensors(run), path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    tensors = {f"model/{name}": tensor for name, tensor in _model_tensors(run).items()}
    for index, entry in run.optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if value is not None:  # SGD's momentum buffer before the first step
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).contiguous()
    tensors |= {f"gradient_filter/{name}": tensor for name, tensor in run.gradient_filter.state().items()}
    tensors["generator/state"] = run.generator.get_state()
    return tensors


def _model_tensors(run: Run) -> dict[str, torch.Tensor]:
    # Tied weights stand in the state dict under two names; safetensors refuses that, so the first name is kept.
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in run.model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach().contiguous()
    return tensors


def _load_model(run: Run, tensors: dict[str, torch.Tensor], checkpoint: Path) -> None:
    expected = _model_tensors(run)
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
    )
    if wrong:
        raise StorageError(
            f"{checkpoint} belongs to another model: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + " differ in name or shape"
        )
    run.model.load_state_dict(tensors, strict=False)


def _state(run: Run) -> dict[str, Any]:
    return {
        "progress": dataclasses.asdict(run.progress),
        "step_metrics": {name: float(value) for name, value in run.step_metrics.items()},
        "optimizer": run.optimizer.state_dict()["param_groups"],
    }


def _unflatten(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    return state


def _unused(path: Path) -> Path:
    # A second checkpoint of the same step (a rung reached just after a timed one, or after a kill) gets a name of
    # its own, which sorts after the first: the first stays in force until the second is complete.
    names = [path, *(path.with_suffix(f".{number:03d}") for number in range(1, 1000))]
    return next(name for name in names if not name.exists())


def _candidates(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _write_json(path: Path, content: Any) -> None:
    with path.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
