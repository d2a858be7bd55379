"""Generation: tokens a second with a cache of keys and values, against nanoGPT's kind of loop and against single rows.

    python -m tests.benchmarks.generation                                    both models, about 3 minutes
    python -m tests.benchmarks.generation --models character --batches 1 16  a short look
    python -m tests.benchmarks.generation --precision bf16

`character` is a decoder of nanoGPT's CPU size (4 layers, 4 heads, width 128, 65 characters) with a length of 256,
`stories` the 22.7 M parameters of the TinyStories handout (4 layers, 16 heads, width 512, 10,000 tokens, RoPE, SwiGLU).
Both have random weights, which cost what trained ones do. All rows have prompts of the same length; top-k 200 and a
temperature of 0.8, as nanoGPT samples. "uncached" is its loop with our model: all tokens once more for each new one,
the classifier for the last position only. "single rows" generates as many rows one after another, with the cache: the
time of one of them, times their number. CPU seconds of the process, one thread; ratios within a turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text

PROMPT, TEMPERATURE, TOP_K = 16, 0.8, 200
HANDOUT = {
    "width": 512,
    "heads": 16,
    "norm_kind": "rms",
    "positions": "rope",
    "mlp": "swiglu",
    "tie_embeddings": False,
    "initialisation": "truncated_normal",
}
MODELS: dict[str, tuple[dict[str, Any], int]] = {"character": ({}, 65), "stories": (HANDOUT, 10_000)}
"""Switches beside the defaults, and vocabulary."""
NEW_TOKENS = {"character": 100, "stories": 32}
LENGTH = 256


def main() -> None:
    options = _options()
    import torch

    torch.set_num_threads(1)
    print_machine(threads=1)
    for name in options.models:
        _compare(name, options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    arguments.add_argument("--batches", nargs="+", type=int, default=(1, 16, 64))
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    return arguments.parse_args()


def _compare(name: str, options: argparse.Namespace) -> None:
    model, new = _model(name), NEW_TOKENS[name]
    print(f"{name}: prompts of {PROMPT} tokens, {new} new ones, {options.precision}\n")
    rows = []
    for batch in options.batches:
        measure = partial(_seconds, model=model, new=new, precision=options.precision)
        cases: dict[str, Callable[[], float]] = {
            "cached": partial(measure, _cached, batch=batch),
            "uncached": partial(measure, _uncached, batch=batch),
            "single rows": lambda measure=measure, batch=batch: batch * measure(_cached, batch=1),
        }
        rows.append(_row(batch, batch * new, alternate(cases, options.turns, warm_up=0)))
    headers = ("batch", "tokens/s", "uncached", "single rows", "times uncached", "times single rows")
    print_table(headers, rows)


def _row(batch: int, tokens: int, samples: dict[str, Sample]) -> tuple[str, ...]:
    rates = [f"{tokens / sample.median:,.0f}" for sample in samples.values()]
    ours = samples["cached"]
    return str(batch), *rates, ratio_text(ours, samples["uncached"]), ratio_text(ours, samples["single rows"])


def _model(name: str) -> Any:
    import torch

    from trainables.models.decoder import Decoder
    from trainables.models.decoder_config import DecoderConfig

    switches, vocabulary = MODELS[name]
    config = DecoderConfig.model_validate(switches)
    model = Decoder(config, vocabulary=vocabulary, length=LENGTH, generator=torch.Generator().manual_seed(0))
    return model.eval()


def _seconds(way: Callable[..., object], *, model: Any, batch: int, new: int, precision: str) -> float:
    import torch

    prompts = [[(row + place) % model.vocabulary for place in range(PROMPT)] for row in range(batch)]
    context: AbstractContextManager[Any] = nullcontext()
    if precision == "bf16":
        context = torch.autocast("cpu", dtype=torch.bfloat16)
    with context:
        way(model, prompts[:1], 2)  # what is done once only
        begin = time.process_time()
        way(model, prompts, new)
        return time.process_time() - begin


def _cached(model: Any, prompts: list[list[int]], new: int) -> object:
    from trainables.models.generation import generate

    return generate(model, prompts, max_new_tokens=new, temperature=TEMPERATURE, top_k=TOP_K)


def _uncached(model: Any, prompts: list[list[int]], new: int) -> object:
    import torch

    tokens, generator = torch.tensor(prompts), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(new):
            hidden = model.hidden_states(tokens[:, -model.length :])
            logits = model.classifier(hidden[:, -1]).float() / TEMPERATURE
            smallest = logits.topk(min(TOP_K, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
            chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, chosen], dim=1)
    return tokens


if __name__ == "__main__":
    main()
