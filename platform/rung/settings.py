"""The part of a configuration that the engine reads: optimizer, schedule, evaluation points, early stopping.

Imports no torch, so that `rung plan` can check thousands of configurations in well under a second.
A trainable's own configuration derives from `TrainableConfig` and may change any default.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rung.identity import ADDED_LATER

Precision = Literal["fp32", "bf16", "fp16"]


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys and takes no boolean for a number."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads True as 1; in a study file that is always a mistake.
        if isinstance(value, bool) and info.field_name is not None:
            accepted = _leaf_types(cls.model_fields[info.field_name].annotation)
            if bool not in accepted and accepted & {int, float}:
                raise ValueError(f"expected a number, got the boolean {str(value).lower()}")
        return value


def _leaf_types(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(_leaf_types(argument) for argument in get_args(annotation)))
    if origin is Annotated:
        return _leaf_types(get_args(annotation)[0])
    return {annotation}


class GrokfastConfig(StrictModel):
    """Grokfast (Lee, Kang, Kim & Lee 2024, arXiv 2405.20233): adds a multiple of a running mean of the gradient to the
    gradient, so that its slow part, which is what generalises late, gains weight against the fast part.

    Costs one tensor per parameter in memory and in every checkpoint with `ema`, `window` + 1 with `ma`.
    """

    kind: Literal["none", "ema", "ma"] = "none"
    """`none`: off. `ema`: the mean is an exponential moving average. `ma`: it is that of the last `window` steps, and
    nothing is added before there were as many."""
    amplification: float = Field(default=2.0, ge=0)
    """The multiple, lambda in the paper, which takes 2 with `ema` and 5 with `ma`."""
    alpha: float = Field(default=0.98, ge=0, lt=1)
    """`ema` only: what the average keeps of itself in a step."""
    window: int = Field(default=100, gt=0)
    """`ma` only: steps that are averaged, the present one included."""
    start: int = Field(default=0, ge=0)
    """Steps before anything is added, while the mean is taken already: for models that do not come to learn their
    training items otherwise."""


class OptimizerConfig(StrictModel):
    """Which optimizer, with which constants."""

    kind: Literal["sgd", "momentum", "adam", "adamw"] = "adamw"
    """`sgd` and `momentum` are torch.optim.SGD; `adam` adds weight decay to the gradient (L2), `adamw` decouples
    it (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate, before the schedule multiplies it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay coefficient."""
    decay: Annotated[Literal["all", "matrices"], ADDED_LATER] = "all"
    """Which parameters are decayed: all, or only those of two and more dimensions, so no biases and no norms."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of `momentum`; the other optimizers ignore it."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay rate of Adam's first moment."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay rate of Adam's second moment."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to Adam's denominator."""
    grokfast: Annotated[GrokfastConfig, ADDED_LATER] = GrokfastConfig()
    """Amplification of slow gradients, before clipping and before the optimizer; off by default."""


class ScheduleConfig(StrictModel):
    """How the learning rate changes over training."""

    kind: Literal["none", "step", "cosine", "linear", "plateau"] = "none"
    """`none`: constant. `step`: times `factor` each `every`. `cosine`: from the peak to `minimum` over `length`
    (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts). `linear`: the same in a straight line. `plateau`:
    times `factor` whenever `metric` has not improved for `patience` scheduled evaluations."""
    unit: Literal["step", "epoch"] = "step"
    """What `warmup`, `every` and `length` count. Within an epoch the learning rate is constant when this is `epoch`."""
    warmup: int = Field(default=0, ge=0)
    """Linear warm-up to the peak, in `unit`s. The schedule proper starts after it."""
    warmup_from: Annotated[Literal["first_step", "zero"], ADDED_LATER] = "first_step"
    """Where the warm-up begins. `first_step`: with 1/(warmup + 1) of the peak, as in nanoGPT; `zero`: with 0, and
    t/warmup of the peak at step t, as in Stanford's CS336."""
    every: int = Field(default=100, gt=0)
    """`step` only: `unit`s between two decays."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """`step` and `plateau`: what the learning rate is multiplied by."""
    length: int | None = Field(default=None, gt=0)
    """`cosine` and `linear`: `unit`s from the first to the minimum learning rate, warm-up included. Empty: the whole
    budget, which must then be one of steps, epochs or tokens."""
    minimum: float = Field(default=1e-5, ge=0)
    """`cosine`, `linear` and `plateau`: the learning rate never falls below this."""
    minimum_fraction: Annotated[float | None, ADDED_LATER] = Field(default=None, ge=0, le=1)
    """The same as a part of the peak, in place of `minimum`, so that it moves with a swept learning rate."""
    metric: str = "validation/loss"
    """`plateau` only: the metric that must fall."""
    patience: int = Field(default=5, ge=0)
    """`plateau` only: scheduled evaluations without improvement that are put up with."""
    threshold: float = Field(default=1e-4, ge=0)
    """`plateau` only: relative fall of `metric` that counts as an improvement."""

    @property
    def spans_budget(self) -> bool:
        """Whether it falls over the whole budget, so that another budget has another learning rate at every step."""
        return self.kind in ("cosine", "linear") and self.length is None


class EvaluationConfig(StrictModel):
    """When a run is evaluated: at step 0, at each of the first `first` steps, at every `every`-th step, at the end."""

    first: int = Field(default=0, ge=0)
    """Evaluate at every step from 1 to this one."""
    every: int = Field(default=100, gt=0)
    """Steps between two evaluations after that."""
    log_every: Annotated[int | None, ADDED_LATER] = Field(default=None, gt=0)
    """Steps between two rows without evaluation: loss of the batch, learning rate, and the gradient's norm before it is
    clipped, if it is. Empty: none."""
    generations: Annotated[Literal["rungs", "every"], ADDED_LATER] = "rungs"
    """When what the model writes is recorded. `rungs`: at rungs and at the end of a run. `every`: at every evaluation
    asked for here, the one before training included."""

    def is_due(self, step: int) -> bool:
        """Whether `step` (0 = before the first update) is an evaluation point; the end is the loop's business."""
        return step <= self.first or step % self.every == 0

    def is_logged(self, step: int) -> bool:
        """Whether `step` gets a row although it is no evaluation point."""
        return self.log_every is not None and step % self.log_every == 0 and not self.is_due(step)


class EarlyStoppingConfig(StrictModel):
    """Stop a run whose metric has gone flat: the slope of a least-squares line through the last `window` scheduled
    evaluations stays below `min_delta` in size for `patience` evaluations in a row.

    Grokking looks flat for thousands of steps before it happens: use this for what has no plateau.
    """

    metric: str = "validation/loss"
    """The metric whose slope is watched."""
    patience: int = Field(default=5, gt=0)
    """Flat evaluations in a row that end the run."""
    min_delta: float = Field(default=1e-3, gt=0)
    """Slope, in units of the metric per evaluation, below which the curve counts as flat."""
    warmup: int = Field(default=100, ge=0)
    """Scheduled evaluations before the first one that may count as flat."""
    window: int = Field(default=10, ge=2)
    """Evaluations in the fitted line."""


class StartFrom(StrictModel):
    """The runs of another study that the runs of this configuration start from, seed by seed. Made from a study's
    `start` (`start.py`), not written by hand."""

    study: str
    """Folder of that study, beside this one's."""
    configuration: str
    """Id of its configuration."""
    weights: str
    """First 12 hex digits of the SHA-256 of what the first of its runs has left: with other weights there, this is
    another configuration."""


class TrainableConfig(StrictModel):
    """What every trainable's configuration has. Everything that can be swept is a field of it."""

    start: Annotated[StartFrom | None, ADDED_LATER] = None
    """The checkpoints that runs start from; empty: fresh weights. A study says it with its own key `start`."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and its constants."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning-rate schedule."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    """Largest L2 norm of the whole gradient; a larger one is scaled down to it. Empty: no clipping."""
    precision: Annotated[Precision, ADDED_LATER] = "fp32"
    """`bf16`: matrix products of loss and evaluation run in bfloat16 (torch.autocast); parameters, gradients and
    optimizer stay in fp32. Changes results. Faster where the processor has units for it (tensor cores, AMX, AVX-512
    BF16), slower elsewhere. `fp16`: likewise in float16, with loss scaling, for GPUs without bfloat16."""
    accumulation: Annotated[int, ADDED_LATER] = Field(default=1, gt=0)
    """Parts in which a batch is computed, one after another, to save memory (gradient accumulation). The step is that
    of the whole batch within rounding, except that dropout draws other masks."""
    compile: Annotated[bool, ADDED_LATER] = False
    """Whether training steps go through torch.compile. Takes tens of seconds at the start of every run and changes the
    last bits of all numbers. Evaluation and checkpoints are those of the plain model."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation points."""
    early_stopping: EarlyStoppingConfig | None = None
    """Slope-based early stopping; off when empty."""

    def packing_obstacle(self) -> str | None:
        """Why the engine cannot train runs of this configuration together, as half a sentence; None: it can."""
        obstacles = {
            "optimizer.decay: matrices has no batched form": self.optimizer.decay != "all",
            "precision: fp16 scales each run's loss by itself": self.precision == "fp16",
            "accumulation takes a batch apart": self.accumulation > 1,
            "compile is for runs that are trained one by one": self.compile,
        }
        return next((text for text, applies in obstacles.items() if applies), None)

    @model_validator(mode="after")
    def _running_means_stay_finite(self) -> TrainableConfig:
        if self.precision == "fp16" and self.optimizer.grokfast.kind != "none":
            raise ValueError(
                "precision fp16 and optimizer.grokfast: the first gradient that overflows would stay in the running "
                "mean; use bf16 or fp32"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits_into_length(self) -> TrainableConfig:
        length = self.schedule.length
        if self.schedule.kind in ("cosine", "linear") and length is not None and self.schedule.warmup >= length:
            raise ValueError(
                f"schedule.warmup ({self.schedule.warmup}) must be shorter than schedule.length ({length})"
            )
        return self
