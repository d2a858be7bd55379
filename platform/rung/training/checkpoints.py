"""Checkpoints of a run: safetensors and JSON, no pickle, the completion marker written last.

    <directory>/step-0000001000/tensors.safetensors   model, optimizer, gradient filter, generator, stream
                                state.json            progress and optimizer constants
                                complete.json         marker: size and CRC-32 of the other two

A checkpoint counts only when its marker is there, so that a kill in the middle of writing leaves the one before it in
force. Nothing is renamed in order to finish it: object stores have no cheap rename. One that has its marker and cannot
be read all the same is damaged: it is renamed to `damaged-step-...` and the one before it, or the start, takes its
place, which costs time but no number, because training is deterministic.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rung.errors import StorageError
from rung.results.files import delete_folder
from rung.results.parts import sync_folder
from rung.trainable import Stateful
from rung.training.checkpoint_files import MARKER, STATE, TENSORS, candidates, is_complete, latest_checkpoint
from rung.training.run import Progress, Run
from rung.training.schedules import PlateauState


class DamagedCheckpoint(Exception):
    """A checkpoint that was finished once and cannot be read any more; its text names it and the reason."""


def save_checkpoint(run: Run, directory: Path, keep: int = 1) -> Path:
    """Writes the state of `run` below `directory` and deletes all but the newest `keep` checkpoints there.

    Raises:
        StorageError: it cannot be written; the checkpoint before it is still whole.
    """
    target = _unused(directory / f"step-{run.progress.step:010d}")
    try:
        target.mkdir(parents=True)
        _save_tensors(_tensors(run), target / TENSORS)
        _sync(target / TENSORS)
        _write_json(target / STATE, _state(run))
        _write_json(target / MARKER, {name: _fingerprint(target / name) for name in (TENSORS, STATE)})
        sync_folder(target)
        sync_folder(directory)
        # Not simply the highest steps: a torn or damaged checkpoint may well be the one with the highest.
        older = (path for path in candidates(directory) if path != target and is_complete(path))
        kept = [target, *older][:keep]
        for old in candidates(directory):
            if old not in kept:
                delete_folder(old)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the checkpoint {target}: {error}") from error
    return target


def resume(new: Callable[[], Run], directory: Path) -> tuple[Run, list[str]]:
    """A run as its newest readable checkpoint left it, or `new()` if there is none; damaged ones are set aside.

    Returns:
        The run, and one sentence for each checkpoint that was set aside.

    Raises:
        StorageError: a checkpoint belongs to a model of another shape, or a damaged one cannot be renamed.
    """
    notes: list[str] = []
    while True:
        run, checkpoint = new(), latest_checkpoint(directory)
        if checkpoint is None:
            return run, notes
        try:
            load_checkpoint(run, checkpoint)
            return run, notes
        except DamagedCheckpoint as error:
            kept = _set_aside(checkpoint)
            notes.append(f"{error}; it is now {kept.name}, and the run goes on from before it")


def load_checkpoint(run: Run, checkpoint: Path) -> None:
    """Puts `run` where it stood when `checkpoint` was written.

    Raises:
        DamagedCheckpoint: it cannot be read; `run` is in no usable state.
        StorageError: it is whole, but belongs to a model of another shape.
    """
    tensors, state = _read(checkpoint, run.trainable.device)
    names = ("model", "optimizer", "gradient_filter", "generator", "stream")
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    _check_model(run, parts["model"], checkpoint)
    try:
        run.model.load_state_dict(parts["model"], strict=False)
        run.optimizer.load_state_dict({"state": _unflatten(parts["optimizer"]), "param_groups": state["optimizer"]})
        run.gradient_filter.load_state(parts["gradient_filter"])
        run.generator.set_state(_generator_state(run, parts["generator"]["state"], checkpoint))
        if isinstance(run.stream, Stateful):
            run.stream.load_state(parts["stream"])
        run.scaling.load_state(state.get("scaling", {}))  # the first checkpoints had none
        run.step_metrics = state["step_metrics"]
        plateau = PlateauState(**state["progress"].pop("plateau"))
        run.progress = Progress(**state["progress"], plateau=plateau)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        text = f"{checkpoint} was not written by this version of rung: {type(error).__name__}: {error}"
        raise DamagedCheckpoint(text) from error


def load_weights(run: Run, checkpoint: Path) -> None:
    """Puts the weights of a checkpoint into `run`, which can write and be evaluated then, but not go on training. They
    may have been trained on another device.

    Raises:
        StorageError: the checkpoint cannot be read, or belongs to a model of another shape.
    """
    weights, step = read_weights(checkpoint, run.trainable.device)
    _check_model(run, weights, checkpoint)
    run.model.load_state_dict(weights, strict=False)
    run.progress.step = step


def read_weights(checkpoint: Path, device: str = "cpu") -> tuple[dict[str, torch.Tensor], int]:
    """The weights in a checkpoint by name, tied ones under the first, and the step that they stand at.

    Raises:
        StorageError: the checkpoint cannot be read.
    """
    try:
        tensors, state = _read(checkpoint, device)
    except DamagedCheckpoint as error:
        raise StorageError(str(error)) from error
    weights = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    return weights, int(state["progress"]["step"])


def _generator_state(run: Run, state: torch.Tensor, checkpoint: Path) -> torch.Tensor:
    """The state of the run's generator; raises StorageError if it is that of another kind of device."""
    expected = run.generator.get_state()
    if state.numel() != expected.numel():
        raise StorageError(
            f"{checkpoint} was written on another kind of device than {run.trainable.device}: its random numbers "
            "cannot go on here. Continue on that kind of device, or give the study another name"
        )
    return state.cpu()


def _set_aside(checkpoint: Path) -> Path:
    target = _unused(checkpoint.with_name(f"damaged-{checkpoint.name}"))
    try:
        checkpoint.rename(target)
    except OSError as error:
        raise StorageError(f"cannot rename the damaged checkpoint {checkpoint}: {error.strerror}") from error
    return target


def save_model(run: Run, path: Path) -> None:
    """Writes the weights alone, as safetensors that any tool reads; the file is whole or the one before.

    Raises:
        StorageError: they cannot be written.
    """
    save_weights(_model_tensors(run), path)


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes weights by name, each tensor once, likewise. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
        _sync(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path)
    # The library lets nobody but the owner read it; a group on a cluster shares its folders.
    path.chmod(path.parent.stat().st_mode & 0o666)


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    tensors = {f"model/{name}": tensor for name, tensor in _model_tensors(run).items()}
    for index, entry in run.optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if value is not None:  # SGD's momentum buffer before the first step
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value).contiguous()
    tensors |= {f"gradient_filter/{name}": tensor for name, tensor in run.gradient_filter.state().items()}
    tensors["generator/state"] = run.generator.get_state()
    if isinstance(run.stream, Stateful):
        tensors |= {f"stream/{name}": tensor.contiguous() for name, tensor in run.stream.state().items()}
    return tensors


def _model_tensors(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in run.trainable.kept(run.model).items()}


def _read(checkpoint: Path, device: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the state of a checkpoint, after a look at sizes and checksums."""
    try:
        for name, expected in json.loads((checkpoint / MARKER).read_text()).items():
            found = _fingerprint(checkpoint / name)
            if expected not in (found, found["size"]):  # the first markers held sizes only
                raise ValueError(f"{name} is not as it was written")
        return load_file(checkpoint / TENSORS, device=device), json.loads((checkpoint / STATE).read_text())
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{checkpoint} cannot be read: {error}") from error


def _check_model(run: Run, tensors: dict[str, torch.Tensor], checkpoint: Path) -> None:
    """Refused, not set aside: only other code makes another model of the same configuration, and to train on with it
    would put rows of two models under one run."""
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
            + " differ in name or shape. Has the trainable's code changed? Go on with the code that wrote it, or give "
            "the study another name"
        )


def _state(run: Run) -> dict[str, Any]:
    return {
        "progress": dataclasses.asdict(run.progress),
        "step_metrics": {name: float(value) for name, value in run.step_metrics.items()},
        "optimizer": run.optimizer.state_dict()["param_groups"],
        "scaling": run.scaling.state(),
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
    others = (path.with_suffix(f".{number:03d}") for number in range(1, 1000))
    return next(name for name in itertools.chain([path], others) if not name.exists())


def _write_json(path: Path, content: Any) -> None:
    with path.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Makes what another library has written survive a loss of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fingerprint(path: Path) -> dict[str, int]:
    """Size in bytes and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return {"size": size, "crc32": checksum}
