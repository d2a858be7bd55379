"""`Arguments`: a run's settings under the names, and with the defaults, of the course's original scripts.

    args = Arguments()
    args.model = "gpt"
    metrics, directory = train_model(args)

They are attributes of an instance, so that runs in one process do not leak into each other, and an attribute
that does not exist is refused instead of being ignored. Imports no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError
from trainables.modular_arithmetic.config import ModularArithmeticConfig


@dataclass
class Arguments:
    """Settings of one run; `to_config` turns what concerns data, model and optimizer into a configuration.

    Setting an unknown attribute raises AttributeError with the nearest name.
    """

    p: int = 31
    """Modulus; prime if `operator` is `/`."""
    operator: str = "+"
    """`+`, `-`, `*` or `/`."""
    r_train: float = 0.5
    """Part of the items of each order that is trained on."""
    operation_orders: int | Sequence[int] = field(default_factory=lambda: [2])
    """2, 3, [2], [3] or [2, 3]: operands of an item."""
    train_batch_size: int = 512
    """Items in a training batch."""
    eval_batch_size: int = 2**12
    """Items evaluated at once."""
    num_workers: int = 0
    """Has no effect: the data are tensors, and there is no loader to help."""

    model: str = "lstm"
    """`lstm` or `gpt`."""
    num_heads: int = 4
    """Attention heads of the GPT."""
    num_layers: int = 2
    """Layers or blocks."""
    embedding_size: int = 2**7
    """Width of the embedding."""
    hidden_size: int | None = 2**7
    """Width of the hidden states, equal to `embedding_size` (None: the same)."""
    dropout: float = 0.0
    """Dropout probability."""
    share_embeddings: bool = False
    """Tie the classifier's weight to the embedding."""
    bias_classifier: bool = True
    """Give the classifier a bias."""

    optimizer: str = "adamw"
    """`sgd`, `momentum`, `adam` or `adamw`."""
    lr: float = 1e-3
    """Learning rate."""
    momentum: float = 0.9
    """Momentum of `momentum`."""
    weight_decay: float = 1.0
    """Weight decay on every parameter."""
    scheduler: str = "none"
    """`none` (or `dummy`), `step` (times .1 each 100), `cosine` (to 1e-5 at the end) or `plateau` (times .1
    after 5 evaluations without improvement)."""
    scheduler_unit: str = "epoch"
    """What `step` and `cosine` count: `epoch` as in the original, or `step`. With the default data and batch
    size an epoch is one step."""

    n_steps: int = 10_001
    """Optimizer steps, exactly."""
    eval_first: int = 100
    """Evaluate at each of the first steps up to this one."""
    eval_period: int = 100
    """Steps between evaluations after that."""
    print_step: int = 100
    """Steps between two printed lines, at evaluations."""
    save_model_step: int = 1000
    """Steps between model snapshots; there is also one at step 1 and one at the end."""
    save_statistic_step: int = 1000
    """Steps between two writings of the metrics; they are also written with every checkpoint and at the end."""

    device: str = "auto"
    """A torch device; `auto` is the first GPU, or else the CPU."""
    exp_id: int = 0
    """Which run of the experiment: the name of its directory."""
    exp_name: str = "default"
    """Name of the experiment: its directory and the beginning of its file names."""
    log_dir: str = "logs"
    """Where experiments lie."""
    seed: int = 42
    """Seed of the split, the order of batches, the initial weights and the dropout masks."""
    verbose: bool = True
    """Print settings and progress."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = [each.name for each in fields(self)]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise AttributeError(f"Arguments has no attribute {name!r}: {hint}")
        super().__setattr__(name, value)

    def to_config(self) -> ModularArithmeticConfig:
        """The configuration that these settings describe.

        Raises:
            RungError: they do not fit together; the text names every problem.
        """
        if self.hidden_size not in (None, self.embedding_size):
            raise RungError(
                f"embedding_size {self.embedding_size} and hidden_size {self.hidden_size} must be equal: "
                "embedding and hidden states have one width"
            )
        try:
            return ModularArithmeticConfig.model_validate(self._as_config())
        except ValidationError as error:
            problems = [_problem(each) for each in error.errors()]
            raise RungError("these arguments cannot be trained:\n" + "\n".join(problems)) from error

    def _as_config(self) -> dict[str, Any]:
        orders = self.operation_orders
        return {
            "modulus": self.p,
            "operator": self.operator,
            "orders": (orders,) if isinstance(orders, int) else tuple(orders),
            "train_fraction": self.r_train,
            "batch_size": self.train_batch_size,
            "evaluation_batch_size": self.eval_batch_size,
            "model": {
                "kind": self.model,
                "layers": self.num_layers,
                "width": self.embedding_size,
                "heads": self.num_heads,
                "dropout": self.dropout,
                "tie_embeddings": self.share_embeddings,
                "classifier_bias": self.bias_classifier,
            },
            "optimizer": {
                "kind": self.optimizer,
                "learning_rate": self.lr,
                "momentum": self.momentum,
                "weight_decay": self.weight_decay,
            },
            "schedule": {
                "kind": "none" if self.scheduler == "dummy" else self.scheduler,
                "unit": self.scheduler_unit,
            },
            "evaluation": {"first": self.eval_first, "every": self.eval_period},
        }


_NAMES = {
    "modulus": "p",
    "orders": "operation_orders",
    "train_fraction": "r_train",
    "batch_size": "train_batch_size",
    "evaluation_batch_size": "eval_batch_size",
    "model.kind": "model",
    "model.layers": "num_layers",
    "model.width": "embedding_size",
    "model.heads": "num_heads",
    "model.dropout": "dropout",
    "model.tie_embeddings": "share_embeddings",
    "model.classifier_bias": "bias_classifier",
    "optimizer.kind": "optimizer",
    "optimizer.learning_rate": "lr",
    "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "weight_decay",
    "schedule.kind": "scheduler",
    "schedule.unit": "scheduler_unit",
    "evaluation.first": "eval_first",
    "evaluation.every": "eval_period",
}
"""What a field of the configuration is called here."""


def _problem(error: Any) -> str:
    """One line for one of pydantic's errors, under the name that the user wrote."""
    path = ".".join(str(part) for part in error["loc"])
    parents = [".".join(path.split(".")[:n]) for n in range(path.count(".") + 1, 0, -1)]
    name = next((_NAMES[each] for each in parents if each in _NAMES), path)
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"  {name}: {text}" if name else f"  {text}"
