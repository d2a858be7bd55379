"""How long the validation metrics of a run that will grok stand still: a rule of thumb. Imports no torch."""

from __future__ import annotations

from trainables.modular_arithmetic.config import ModularArithmeticConfig

ANCHOR = 3000
"""Steps at a learning rate of 1e-3, a weight decay of 1 and half of the table (experiment E1, addition mod 31): there
five seeds of the LSTM had a quarter of the validation items right after 2,400 to 3,500 steps, four of five of the GPT
half of them after 2,000 to 4,300."""

GROKFAST = 40
"""How many times shorter it is with Grokfast: its authors report 44 and 51 times fewer steps to 95 % (see
docs/reproductions.md)."""


def plateau(config: ModularArithmeticConfig, metric: str) -> int | None:
    """Steps before which a validation metric stands still; None for other metrics, and where there is no experience:
    without weight decay a run may never grok, and other optimizers than AdamW have not been tried.

    ANCHOR x (0.5 / train_fraction)^2.04 x (1e-3 / learning_rate)^0.5 x (1 / weight_decay)^0.64, with the exponents of a
    sweep over 384 two-layer MLPs (openreview.net, TGqGmGZ2Hz; R^2 = .73), and nothing gained by a weight decay above 1.
    It is rough: a quarter of the validation items were right after, in median over the seeds that got there,

    | subtraction, 80 % of the table, learning rate 1e-2 | this rule | GPT | LSTM |
    |---|---|---|---|
    | mod 17, weight decay 1 (the demo) | 360 | 450 | 325 |
    | mod 17, weight decay .3 (the demo) | 790 | - | 650 |
    | mod 11, weight decay 1, width 32 | 360 | 350 | 825 |
    | mod 11, weight decay .3, width 32 | 790 | 1,050 | 800, in 1 of 12 |

    and single seeds lie within a factor of two of their median.
    """
    optimizer = config.optimizer
    if not metric.startswith("validation/") or optimizer.kind != "adamw" or optimizer.weight_decay == 0:
        return None
    steps: float = ANCHOR * (0.5 / config.train_fraction) ** 2.04 * (1e-3 / optimizer.learning_rate) ** 0.5
    steps /= min(1.0, optimizer.weight_decay) ** 0.64
    if optimizer.grokfast.kind != "none":
        steps = max(optimizer.grokfast.start, steps / GROKFAST)
    return _rounded(steps)


def _rounded(steps: float) -> int:
    """To two digits: there are no more in it."""
    return max(1, int(float(f"{steps:.2g}")))
