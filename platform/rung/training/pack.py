"""A pack: runs whose parameters and optimizer states lie in tensors with a row for each run, and take steps together.

One call of the trainable's loss serves all runs: torch.func.vmap maps it, with its gradient, over the rows. The runs
stay what they are: parameters and states of each are views of its row, so evaluation, checkpoints and tables see
nothing of the pack. A run's numbers do not depend on who else is in the pack, bit for bit on a CPU with one thread.

Leaves out dropout, and all else that differs from run to run inside the loss (`Trainable.packing_obstacle`).

Shape suffixes: N runs, P numbers in a row (all trainable parameters of a run); ... any shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from rung.errors import RungError
from rung.trainable import Loss
from rung.training.layout import Layout
from rung.training.packed_optimizers import pack_optimizers
from rung.training.run import Run
from rung.training.stacking import Structure, put_together

_MAY_DIFFER = frozenset({"optimizer", "schedule", "gradient_clip", "evaluation", "early_stopping"})
"""Parts of the configuration that the engine applies run by run; the others change what is computed."""


@dataclass(frozen=True)
class Gradients:
    """What one call of the loss gave for each run of a pack."""

    rows_NP: torch.Tensor
    losses: list[float]
    metrics: Mapping[str, torch.Tensor]
    """`Loss.metrics`, each (N, ...)."""
    tokens: int
    """Tokens that each run's model read."""

    def of(self, indices: Sequence[int]) -> Gradients:
        """Those of some of the runs."""
        rows = list(indices)
        metrics = {name: values[rows] for name, values in self.metrics.items()}
        return Gradients(self.rows_NP[rows], [self.losses[index] for index in rows], metrics, self.tokens)


class Pack:
    """Some runs, bound together; a run that is bound into another pack leaves this one, which must then go.

    Args:
        runs: of one trainable; their configurations may differ in what the engine applies (learning rate, decay,
            clipping, schedule), but not in the model, the data or the kind of optimizer.

    Raises:
        ValueError: their configurations differ in more than that.
        RungError: the model's parameters cannot be put into a row.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        _check_alike(runs)
        first = runs[0]
        self.runs = list(runs)
        self._names = [name for name, parameter in first.model.named_parameters() if parameter.requires_grad]
        self.layout = Layout(_parameters(first))
        self._weights_NP = self.layout.stack([_parameters(run) for run in runs])
        for run, row_P in zip(runs, self._weights_NP, strict=True):
            for parameter, view in zip(_parameters(run), self.layout.split(row_P), strict=True):
                parameter.data = view
        self._optimizer = pack_optimizers([run.optimizer for run in runs], self.layout)
        limits = [run.config.gradient_clip for run in runs]
        self._limits_N = self._weights_NP.new_tensor([math.inf if limit is None else limit for limit in limits])
        constants = [_constants(run.model) for run in runs]
        self._constants = {name: torch.stack([each[name] for each in constants]) for name in constants[0]}
        self._loss = _LossModule(first)

    def gradients(self, structure: Structure, batches: Sequence[Sequence[torch.Tensor]]) -> Gradients:
        """Losses and gradients of all runs as they stand.

        Args:
            structure: of every batch, see `stacking.take_apart`.
            batches: the tensors of each run's batch.

        Raises:
            RungError: the trainable's loss cannot be computed for several runs at once.
        """
        tokens = 0

        def loss_of(
            row_P: torch.Tensor, constants: dict[str, torch.Tensor], tensors: list[torch.Tensor]
        ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            nonlocal tokens
            parameters = dict(zip(self._names, self.layout.split(row_P), strict=True))
            state = {f"model.{name}": tensor for name, tensor in (parameters | constants).items()}
            loss: Loss = functional_call(self._loss, state, (put_together(structure, tensors),))
            tokens = loss.tokens
            return loss.value, dict(loss.metrics)

        try:
            stacked = [torch.stack(tensors) for tensors in zip(*batches, strict=True)]
            gradient = vmap(grad_and_value(loss_of, has_aux=True))
            rows_NP, (losses_N, metrics) = gradient(self._weights_NP, self._constants, stacked)
        except RungError:
            raise
        except Exception as error:
            raise cannot_pack(self.runs, error) from error
        return Gradients(rows_NP, losses_N.tolist(), metrics, tokens)

    def step(self, gradients: Gradients) -> None:
        """One optimizer step of every run, each with its own learning rate, filter, clipping and decay."""
        rows_NP = gradients.rows_NP
        for index, run in enumerate(self.runs):
            for group in run.optimizer.param_groups:
                group["lr"] = run.learning_rate()
            run.step_metrics = {f"batch/{name}": values[index] for name, values in gradients.metrics.items()}
            run.gradient_filter.apply(self._by_parameter(run, rows_NP[index]))
        self._clip(rows_NP)
        self._optimizer.update(self._weights_NP, rows_NP)

    def _clip(self, rows_NP: torch.Tensor) -> None:
        """As torch.nn.utils.clip_grad_norm_ does it, run by run."""
        if all(run.config.gradient_clip is None for run in self.runs):
            return
        norms_N = torch.linalg.vector_norm(rows_NP, dim=1)
        scales_N = (self._limits_N / (norms_N + 1e-6)).clamp_(max=1).masked_fill_(self._limits_N.isinf(), 1)
        rows_NP.mul_(scales_N[:, None])
        for run, norm in zip(self.runs, norms_N.unbind(), strict=True):
            if run.config.gradient_clip is not None:
                run.step_metrics = {**run.step_metrics, "gradient_norm": norm}

    def _by_parameter(self, run: Run, row_P: torch.Tensor) -> Iterator[torch.Tensor | None]:
        """The gradient of each parameter of the model, None of those that are not trained; nothing until asked."""
        views = iter(self.layout.split(row_P))
        for parameter in run.model.parameters():
            yield next(views) if parameter.requires_grad else None


def release(run: Run) -> None:
    """Gives a run tensors of its own, so that nothing of the pack it was in is kept alive."""
    for parameter in _parameters(run):
        parameter.data = parameter.data.clone()
    for state in run.optimizer.state.values():
        state.update({name: value.clone() for name, value in state.items()})


class _LossModule(nn.Module):
    """A trainable's loss as a module that contains the model, so that functional_call can put other parameters in."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._trainable, self._precision = run.trainable, run.precision
        # A model of its own, since what `transformable` changes must not touch the run's.
        generator = torch.Generator(device=run.trainable.device)
        self.model = run.trainable.transformable(run.trainable.model(generator)).train()

    def forward(self, batch: object) -> Loss:
        """The loss on one batch."""
        with self._precision:
            return self._trainable.loss(self.model, batch)


def _parameters(run: Run) -> list[nn.Parameter]:
    return [parameter for parameter in run.model.parameters() if parameter.requires_grad]


def _constants(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training does not change: parameters that are not trained, and buffers."""
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor.detach() for name, tensor in (frozen | dict(model.named_buffers())).items()}


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0].config.model_dump(exclude=_MAY_DIFFER)
    for run in runs[1:]:
        other = run.config.model_dump(exclude=_MAY_DIFFER)
        differing = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing or type(run.trainable) is not type(runs[0].trainable):
            what = ", ".join(differing) or "trainable"
            raise ValueError(f"{runs[0].run_id} and {run.run_id} differ in {what} and cannot be in one pack")


def cannot_pack(runs: Sequence[Run], error: Exception) -> RungError:
    """What to tell a user whose runs cannot be trained together because of `error`."""
    name = type(runs[0].trainable).__name__
    cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if isinstance(error, torch.OutOfMemoryError):
        return RungError(
            f"{name}: {len(runs)} runs together do not fit into memory ({cause}): use fewer seeds, or serial"
        )
    return RungError(
        f"{name}: the loss of {len(runs)} runs cannot be computed together ({cause}). Runs that are trained together "
        "need a loss without .item(), without branches on the value of a tensor, without random draws and without "
        "changes of buffers, because torch.func.vmap runs it once for all. Use replication: serial, which also shows "
        "whether the error is another one"
    )
