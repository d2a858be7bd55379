"""Modular arithmetic as a trainable: what rung's engine asks of it. Importing this module does not import torch.

Try it with `rung train search_spaces/modular_arithmetic/demo.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from rung.settings import TrainableConfig
from rung.trainable import Loss, Metric, Trainable, Workload
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.plateau import plateau
from trainables.modular_arithmetic.workload import workload

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.modular_arithmetic.data import Batches, Items

SPLITS = ("train", "validation")


class ModularArithmetic(Trainable[ModularArithmeticConfig, "Items"]):
    """Learns a table of modular arithmetic from part of it.

    `evaluate` reports loss and accuracy of the whole training and the whole validation set, pooled and per
    order, and the L2 norm of the parameters. On a CPU and without dropout, beginnings that items share are
    computed once.
    """

    Config: ClassVar[type[TrainableConfig]] = ModularArithmeticConfig

    def __init__(self, config: ModularArithmeticConfig, seed: int, device: str = "cpu") -> None:
        super().__init__(config, seed, device)
        from trainables.modular_arithmetic.data import as_items, split

        self.data_seed = seed if config.data_seed is None else config.data_seed
        tables = {order: split(config, order, self.data_seed) for order in config.orders}
        self.items: dict[str, dict[int, Items]] = {
            name: {
                order: as_items(config, sides[side], batch=config.evaluation_batch_size, device=device)
                for order, sides in tables.items()
            }
            for side, name in enumerate(SPLITS)
        }
        union = as_items(config, *(sides[0] for sides in tables.values()), batch=config.batch_size, device=device)
        self.training_items = union if config.model.dropout == 0 else union.without_prefix()

    @classmethod
    def metrics(cls, config: ModularArithmeticConfig) -> Mapping[str, Metric]:
        """`<split>/<loss|accuracy>`, `<split>/order_<n>/<loss|accuracy>` and `parameter_norm`."""
        metrics = {}
        for split in SPLITS:
            groups = {split: "all orders", **{f"{split}/order_{n}": f"order {n}" for n in config.orders}}
            for prefix, which in groups.items():
                loss = f"mean negative log-likelihood of result and EOS on the {split} set, {which}, nats"
                accuracy = f"part of the {split} items, {which}, with result and EOS both right"
                metrics[f"{prefix}/loss"] = Metric("min", loss)
                metrics[f"{prefix}/accuracy"] = Metric("max", accuracy, worst=0.0)
        metrics["parameter_norm"] = Metric("min", "L2 norm of all parameters together")
        return metrics

    @classmethod
    def workload(cls, config: ModularArithmeticConfig) -> Workload:
        """See `workload.workload`."""
        return workload(config)

    @classmethod
    def plateau(cls, config: ModularArithmeticConfig, metric: str) -> int | None:
        """See `plateau.plateau`."""
        return plateau(config, metric)

    @classmethod
    def packing_obstacle(cls, config: ModularArithmeticConfig) -> str | None:
        """Dropout masks come from each run's own generator, one mask at a time."""
        return None if config.model.dropout == 0 else "dropout draws its masks run by run"

    def model(self, generator: torch.Generator) -> nn.Module:
        """A `GPT` or an `LSTM` on the device of `generator`."""
        from trainables.modular_arithmetic.build import build_model

        return build_model(self.config, generator)

    def transformable(self, model: nn.Module) -> nn.Module:
        """The model without its own kernels, which cannot be batched over runs."""
        model.fused = False
        return model

    def batches(self) -> Batches:
        """Batches of the training items of all orders."""
        from trainables.modular_arithmetic.data import Batches

        return Batches(self.training_items, self.config.batch_size, self.data_seed)

    def loss(self, model: nn.Module, batch: Items) -> Loss:
        """Mean over items of the mean negative log-likelihood of result and EOS."""
        from trainables.modular_arithmetic.losses import negative_log_likelihood

        logits = model(batch.inputs_BS, batch.start, batch.prefix)
        value = negative_log_likelihood(logits, batch.targets_BT, batch.weights_BT)
        return Loss(value, tokens=batch.inputs_BS.numel())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every item of both splits, in chunks; sums are kept in float64."""
        from trainables.modular_arithmetic.evaluation import parameter_norm, totals

        metrics: dict[str, float] = {}
        for split, by_order in self.items.items():
            loss_sum = correct_sum = count = 0.0
            for order, items in by_order.items():
                loss, correct = totals(model, items, self.config.evaluation_batch_size)
                metrics[f"{split}/order_{order}/loss"] = loss / len(items)
                metrics[f"{split}/order_{order}/accuracy"] = correct / len(items)
                loss_sum, correct_sum, count = loss_sum + loss, correct_sum + correct, count + len(items)
            metrics[f"{split}/loss"] = loss_sum / count
            metrics[f"{split}/accuracy"] = correct_sum / count
        metrics["parameter_norm"] = parameter_norm(model)
        return metrics
