"""An experiment's settings as a configuration of the trainable `tinystories`, and back. Imports no torch.

The original's keys describe the course's decoder (pre-norm RMSNorm, SwiGLU, rotary positions, no biases, untied output)
and its training (AdamW, linear warm-up from 0, one cosine over all iterations); `overrides` say everything else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError
from trainables.language.dotted import flat
from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.experiment_config import ExperimentConfig

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

_NAMES = {
    "vocabulary": "vocab_size",
    "context": "context_length",
    "batch_size": "batch_size",
    "model.width": "d_model",
    "model.layers": "num_layers",
    "model.heads": "num_heads",
    "model.feed_forward": "d_ff",
    "model.rope_theta": "rope_theta",
    "optimizer.learning_rate": "learning_rate",
    "optimizer.weight_decay": "weight_decay",
    "optimizer.beta1": "beta1",
    "optimizer.beta2": "beta2",
    "schedule.minimum": "min_learning_rate",
    "schedule.warmup": "warmup_iters",
    "gradient_clip": "grad_clip",
    "evaluation.every": "eval_interval",
    "evaluation.log_every": "log_interval",
}
"""What a field of the trainable's configuration is called in an experiment."""


def to_trainable(experiment: ExperimentConfig) -> TinyStoriesConfig:
    """The configuration that trains an experiment; what it has no key for is as in the course.

    Raises:
        RungError: an override that does not exist, or values that do not fit together; it names all problems.
    """
    values = TinyStoriesConfig(
        data=Path(experiment.train_data_path).name or TinyStoriesConfig.model_fields["data"].default
    ).model_dump()
    values["schedule"] |= {"kind": "cosine", "warmup_from": "zero", "length": None, "minimum_fraction": None}
    values["precision"] = PRECISIONS[experiment.dtype]
    for path, name in _NAMES.items():
        _put(values, path, getattr(experiment, name))
    for path, value in experiment.overrides.items():
        _put(values, path, value)
    try:
        return TinyStoriesConfig.model_validate(values)
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors()]
        raise RungError("\n".join(["this experiment cannot be trained:", *dict.fromkeys(problems)])) from error


def from_trainable(config: TinyStoriesConfig, **more: Any) -> ExperimentConfig:
    """The experiment that `to_trainable` turns into this configuration again, but for the name of its data.

    Args:
        config: of a run, which may come from a study.
        more: what a configuration does not say: `max_iterations`, `seed`, `experiment_name`, ...
    """
    wanted = config.model_dump(mode="json")
    wanted["model"]["feed_forward"] = config.model.hidden
    known = {name: _get(wanted, path) for path, name in _NAMES.items()}
    known["log_interval"] = known["log_interval"] or known["eval_interval"]
    known["dtype"] = next(dtype for dtype, precision in PRECISIONS.items() if precision == config.precision)
    known["train_data_path"] = config.data
    known |= more
    # Such a run may break what the original's keys promise (a warm-up as long as the run): then an override says it.
    if known["warmup_iters"] >= known.get("max_iterations", 10_000):
        known["warmup_iters"] = 0
    known["min_learning_rate"] = min(known["min_learning_rate"], known["learning_rate"])
    found = flat(to_trainable(ExperimentConfig(**known)).model_dump(mode="json"))
    missing = object()
    overrides = {name: value for name, value in flat(wanted).items() if found.get(name, missing) != value}
    return ExperimentConfig(**known, overrides=overrides)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value of a dotted path; what is no mapping on the way becomes one."""
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[last] = value


def _get(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


def _problem(error: Any) -> str:
    """One line for one of pydantic's errors, under the name that the user wrote."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path, flat(TinyStoriesConfig().model_dump()), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"  overrides: the trainable tinystories has no setting {path!r}{hint}"
    name = _NAMES.get(path, f"overrides: {path}" if path else "")
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"  {name}: {text}" if name else f"  {text}"
