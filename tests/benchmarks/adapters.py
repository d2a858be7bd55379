"""Low-rank adapters: what a training step costs beside one of the whole model, and what merging saves.

    python -m tests.benchmarks.adapters              about a minute on an idle machine
    python -m tests.benchmarks.adapters --ranks 64

The decoder is that of the arithmetic language model (6 layers, 8 heads, width 256, 258 tokens), a batch 16 rows of 128
tokens. "peft" has the same adapters through `peft.get_peft_model`, peft's own wrapper, where ours are injected. A step
is zero_grad, forward, backward and AdamW's step; a forward pass is one without gradients, and with merged weights that
of the whole model. CPU seconds of the process, one thread; ratios within a turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text

VOCABULARY, ROWS, LENGTH = 258, 16, 128
WHOLE = "whole model"


def main() -> None:
    options = _options()
    import torch

    torch.set_num_threads(1)
    print_machine(threads=1)
    models = _models(options.ranks)
    steps = alternate({name: partial(_step, *_trained(model)) for name, model in models.items()}, options.turns)
    passes = alternate({name: partial(_forward, model) for name, model in models.items()}, options.turns)
    rows = [
        (
            name,
            f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}",
            f"{1000 * steps[name].median:.0f}",
            ratio_text(steps[name], steps[WHOLE]),
            f"{1000 * passes[name].median:.0f}",
            ratio_text(passes[name], passes[WHOLE]),
        )
        for name, model in models.items()
    ]
    headers = ("trained", "parameters", "step, ms", "times as fast", "forward pass, ms", "times as fast")
    print_table(headers, rows)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", nargs="+", type=int, default=(8,))
    arguments.add_argument("--turns", type=int, default=7)
    return arguments.parse_args()


def _models(ranks: list[int]) -> dict[str, Any]:
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    from trainables.models.lora import add_adapters
    from trainables.models.lora_config import LoraConfig, target_layers

    models = {WHOLE: _decoder()}
    for rank in ranks:
        for targets in ("attention", "attention,feedforward"):
            config = LoraConfig(rank=rank, targets=targets)
            adapted = models[f"rank {rank}, {targets}"] = _decoder()
            add_adapters(adapted, config, torch.Generator().manual_seed(0))
        theirs = PeftConfig(r=rank, lora_alpha=16, target_modules=list(target_layers(config, adapted.config)))
        models[f"rank {rank}, {targets}, peft"] = get_peft_model(_decoder(), theirs)
    return models


def _decoder() -> Any:
    import torch

    from trainables.models.decoder import Decoder
    from trainables.models.decoder_config import DecoderConfig

    shape = DecoderConfig(layers=6, width=256, heads=8, feed_forward=1_024, bias=True)
    return Decoder(shape, vocabulary=VOCABULARY, length=512, generator=torch.Generator().manual_seed(0))


def _trained(model: Any) -> tuple[Any, Any]:
    """A model and the optimizer of what is trained of it."""
    from rung.settings import OptimizerConfig
    from rung.training.optimizers import build_optimizer

    return model, build_optimizer(OptimizerConfig(), model)


def _step(model: Any, optimizer: Any) -> float:
    from torch.nn.functional import cross_entropy

    tokens = _tokens()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()

    return _seconds(step)


def _forward(model: Any) -> float:
    import torch

    with torch.no_grad():
        return _seconds(partial(model, _tokens()))


def _tokens() -> Any:
    import torch

    return torch.randint(VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
