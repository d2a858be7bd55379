"""The contract of a trainable, and how a name finds one.

A trainable answers four questions about one run (model, batches, loss, evaluate) and owns no loop: the engine
(`rung.training`) trains it solo, replicated over seeds, or under Ray Tune. Two more answers, `metrics` and
`workload`, are given by the class before anything starts and must not need torch, because `rung plan` asks them.
A class that reads files names them (`data_files`), so that every launch records which ones they were, and says what is
not there yet (`missing`); what can be made on the spot is made once before the first run (`prepare`). Runs that start
from those of another study take over a part of their configuration (`inherited`) and their weights (`begin_from`).
Others have defaults: `plateau`, `packing_obstacle`, `splitting_obstacle` and `references`,
asked without torch like those two; `transformable`, asked of runs that are trained together (`replication: packed`);
`parts`, asked where a batch is computed in pieces or by several workers; `generations`, `complete` and `solve`,
answered by models that write text.

A name is looked up in the entry-point group `rung.trainables`; `package.module:Class` finds one of your own.
"""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

from rung.errors import RungError
from rung.settings import TrainableConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rung.training.team import Team

ConfigT = TypeVar("ConfigT", bound=TrainableConfig)
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)

ENTRY_POINT_GROUP = "rung.trainables"


@dataclass(frozen=True)
class Metric:
    """One number that `Trainable.evaluate` reports."""

    mode: Literal["min", "max"]
    """Whether less or more of it is better."""
    description: str
    """What it is, in one line, with its unit."""
    worst: float | None = None
    """The worst value it can take, if there is one: what a diverged run counts as. Empty: as worse than any number."""


@dataclass(frozen=True)
class Workload:
    """What one run of a configuration costs, as far as it is known before it starts."""

    parameters: int
    """Trainable parameters."""
    tokens_per_step: int
    """Tokens the model reads in one optimizer step."""
    flops_per_step: float
    """Floating-point operations of one optimizer step, forward and backward."""
    steps_per_epoch: int | None = None
    """Optimizer steps in one pass over the training data; empty for an endless stream."""
    evaluation_flops: float = 0.0
    """Floating-point operations of one evaluation."""
    frozen: int = 0
    """Parameters that are not trained: a checkpoint holds them too, but no optimizer state of theirs."""
    memory: float | None = None
    """Estimated peak of device memory, in bytes; empty where it is no concern."""


@dataclass(frozen=True)
class Reference:
    """A value that theory gives for a metric, drawn as a line into its figures."""

    label: str
    """What it is, in a few words (`entropy of the stream`)."""
    value: float
    """In the unit of the metric."""


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote: a row of the table `generations`."""

    prompt: str
    """What the model was given."""
    response: str
    """What it wrote, without the prompt."""
    extracted: str | None = None
    """The answer found in the response."""
    gold: str | None = None
    """The right answer."""
    reward: float | None = None
    """1 for right and 0 for wrong, or whatever the response is worth."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn when a model writes."""

    tokens: int = 200
    """Most new tokens."""
    temperature: float = 0.8
    """What logits are divided by; 0: always the likeliest token."""
    top_k: int | None = None
    """Only so many of the likeliest tokens; None: all."""
    top_p: float | None = None
    """Only the likeliest tokens that together have this probability (nucleus sampling, Holtzman et al. 2020, arXiv
    1904.09751); None: all."""
    seed: int = 0
    """Of the draws: the same seed gives the same texts."""


@dataclass(frozen=True)
class Loss:
    """What `Trainable.loss` returns for one batch."""

    value: torch.Tensor
    """Scalar to minimise, with its graph."""
    tokens: int
    """Tokens the model read."""
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further scalars of this batch; reported as `batch/<name>` at the next evaluation."""


class BatchStream(Protocol[BatchT_co]):
    """A stream of batches without hidden state: where it stands is the number of steps taken, so it resumes exactly."""

    def at(self, position: int, policy: nn.Module) -> BatchT_co:
        """The batch of optimizer step `position` (0, 1, 2, ...).

        A pure function of configuration, seeds and `position`; only reinforcement learning, where a batch is a
        rollout, looks at `policy`, the model as it is at that step, in training mode. Called in the run's precision.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """A stream that remembers something all the same: a rollout that several steps learn from, running sums."""

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        ...

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on where `state` was taken."""
        ...


@runtime_checkable
class Shared(Protocol):
    """A stream whose batches take long to make, so that the processes of a team share the work. The batch is the same
    in all of them."""

    def join(self, team: Team) -> None:
        """Called once, before the first batch."""
        ...


class Trainable(ABC, Generic[ConfigT, BatchT]):
    """One run's model, data, loss and evaluation, built from a configuration and a seed.

    Args of the constructor (derived classes keep them): `config`, a validated configuration; `seed`, the run's seed;
    `device`, a torch device name. Every random draw comes from a generator made from these; the global generators
    of torch, numpy and Python are never used, so runs that share a process do not disturb each other.
    """

    Config: ClassVar[type[TrainableConfig]]
    """The class of `config`."""

    def __init__(self, config: ConfigT, seed: int, device: str = "cpu") -> None:
        self.config = config
        self.seed = seed
        self.device = device

    # Answered by the class, before anything starts, without torch.

    @classmethod
    @abstractmethod
    def metrics(cls, config: ConfigT) -> Mapping[str, Metric]:
        """The metrics that `evaluate` reports for this configuration, by name (`validation/loss`)."""

    @classmethod
    @abstractmethod
    def workload(cls, config: ConfigT) -> Workload:
        """What one run of this configuration costs."""

    @classmethod
    def plateau(cls, config: ConfigT, metric: str) -> int | None:
        """Optimizer steps before which a metric is expected to stand still in a run of this configuration that will yet
        succeed, as far as that is known: None. `rung plan` warns of rungs that lie before it. Right within a factor of
        2 is good enough.
        """
        return None

    @classmethod
    def packing_obstacle(cls, config: ConfigT) -> str | None:
        """Why runs of this configuration cannot be trained together, as half a sentence; None: they can.

        In a pack one call of `loss` serves all runs (torch.func.vmap), so it may only depend on the model and the
        batch, and can neither draw random numbers nor look at the value of a tensor.
        """
        return None

    @classmethod
    def splitting_obstacle(cls, config: ConfigT, parts: int) -> str | None:
        """Why a batch of this configuration cannot be computed in so many parts, as half a sentence; None: it can."""
        if cls.parts is Trainable.parts:
            return f"{cls.__name__} does not say how its batches are split (Trainable.parts)"
        return None

    @classmethod
    def references(cls, config: ConfigT) -> Mapping[str, Sequence[Reference]]:
        """What theory says about metrics of this configuration, by metric: lines in its figures."""
        return {}

    @classmethod
    def data_files(cls, config: ConfigT) -> Sequence[Path]:
        """The files that a run of this configuration reads: a launch records their SHA-256. Made-up data has none."""
        return ()

    @classmethod
    def missing(cls, config: ConfigT) -> str | None:
        """What a run of this configuration needs and this machine lacks, with the command that makes it; None: nothing.

        Asked before Ray is started; `rung plan` only warns, because what is planned here may run elsewhere.
        """
        return None

    @classmethod
    def prepare(cls, configs: Sequence[ConfigT], say: Callable[[str], None]) -> None:
        """Makes what runs of these configurations read and what can be made here: a corpus, a tokenizer.

        Called once before the first run, with Ray at hand in a sweep (`ray.is_initialized()`). A run must be able to do
        without it: on another machine it makes for itself what is not there.

        Args:
            configs: all configurations, or some that a searcher may choose.
            say: takes lines about what is made.

        Raises:
            RungError: it cannot be made.
        """

    @classmethod
    def inherited(cls, config: Any) -> Mapping[str, Any]:
        """What runs of this trainable that start from a run of `config` take over from it, nested: the study's own
        `base` and `space` are laid over it. `config` may be that of another trainable.

        Raises:
            RungError: no run of this trainable can start from one of that configuration.
        """
        return {}

    @classmethod
    def idle(cls, config: ConfigT) -> Mapping[str, str]:
        """Settings that change nothing in this configuration because of another one: dotted paths, and why, as half a
        sentence. `rung plan` warns of those that a study gives or sweeps."""
        return {}

    @classmethod
    def tracked_as(cls, config: ConfigT) -> Mapping[str, str]:
        """Other names that metrics have in experiment trackers, where users of a kind of training expect them: ours to
        theirs, as in `{"batch/loss": "grpo_loss"}`."""
        return {}

    # The four questions.

    @abstractmethod
    def model(self, generator: torch.Generator) -> nn.Module:
        """A freshly initialised module on `self.device`. Initialisation and dropout draw from `generator` only."""

    @abstractmethod
    def batches(self) -> BatchStream[BatchT]:
        """The stream of training batches."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: BatchT) -> Loss:
        """The loss of a model in training mode on one batch."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on a fixed evaluation set disjoint from training.

        The engine calls it in evaluation mode and without gradients. It must leave model and generators as they were.
        """

    def kept(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """What a checkpoint holds of a model, by names of its state dict: what `self.model` would not make again."""
        return weights_of(model)

    def begin_from(self, model: nn.Module, weights: Mapping[str, torch.Tensor], config: Any) -> None:
        """Puts the weights of the run that this one starts from into a fresh model, in place.

        Args:
            model: of `self.model`.
            weights: what the other run's trainable has kept, by name.
            config: the other run's configuration.

        Raises:
            RungError: they do not fit.
        """
        fill(model, weights)

    def parts(self, batch: BatchT, count: int) -> Sequence[tuple[BatchT, float]]:
        """A batch in `count` parts of about the same size, for gradient accumulation and for several workers.

        Each comes with a fraction, and the fractions sum to 1: the sum of fraction times loss over the parts is the
        loss of the whole. A pure function of `batch` and `count`; no part is empty.

        Raises:
            RungError: the batch cannot be split, or not into so many parts.
        """
        raise RungError(f"{type(self).__name__} does not say how its batches are split (Trainable.parts)")

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Some texts that show what the model can do; recorded at rungs and at the end of a run.

        Called after `evaluate`, like it in evaluation mode and without gradients; the same rules hold.
        """
        return ()

    def complete(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model writes after each prompt (without the prompt), for `rung sample`.

        Raises:
            RungError: this trainable's models do not write, or a prompt has characters that they do not know.
        """
        raise RungError(f"models of {type(self).__name__} do not write text")

    def solve(self, model: nn.Module, problem: str) -> str:
        """What the model answers to a problem, as text for `rung solve`: how it came to it, the result, and what is
        wrong in it as far as that can be checked.

        Raises:
            RungError: this trainable's models solve no problems, or it is none that they can read.
        """
        raise RungError(f"models of {type(self).__name__} solve no problems")

    def transformable(self, model: nn.Module) -> nn.Module:
        """A model in a form that torch.func can transform, with the same parameters.

        For runs that are trained together. `model` was made for the purpose and may be changed; evaluation still sees
        the runs' own models. Kernels without a batching rule (torch's LSTM) must be switched off here.
        """
        return model


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a model with each tensor once: of tied ones the first name."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def fill(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copies weights into the parameters and buffers of the same names.

    Args:
        model: any module.
        weights: tensors by the names of its state dict, each once: of tied ones the first name.

    Raises:
        RungError: names or shapes differ.
    """
    expected = weights_of(model)
    wrong = [
        f"{name} is {_shape(weights.get(name))} there and {_shape(expected.get(name))} here"
        for name in dict.fromkeys([*expected, *weights])
        if name not in expected or name not in weights or expected[name].shape != weights[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RungError(
            f"a checkpoint of another shape: {'; '.join(wrong[:3])}{more}. A stage takes its model over from what it "
            "starts from: leave the model's settings out of its study"
        )
    model.load_state_dict(dict(weights), strict=False)


def _shape(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else " x ".join(map(str, tensor.shape)) or "a number"


def find_trainable(name: str) -> type[Trainable[Any, Any]]:
    """The trainable of a name: a registered one (`modular_arithmetic`) or `package.module:Class`.

    Raises:
        RungError: nothing of that name, with the names there are; or the import failed, with its cause.
    """
    registered = _registered()
    target = registered.get(name, name)
    if ":" not in target:
        near = difflib.get_close_matches(name, registered, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RungError(
            f"no trainable is called {name!r}: {hint}registered are {', '.join(sorted(registered)) or 'none'}; "
            "your own is written as package.module:Class"
        )
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        where = "" if name in registered else ". Its folder must be on the import path: install it, or set PYTHONPATH"
        raise RungError(f"trainable {name!r} cannot be imported from {target!r}: {error}{where}") from error
    if not (isinstance(found, type) and issubclass(found, Trainable)):
        raise RungError(f"trainable {name!r}: {target!r} is not a subclass of rung.trainable.Trainable")
    return found


@cache
def _registered() -> dict[str, str]:
    """The registered names and where they lead; reading the metadata of every installed package takes 20 ms."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
