"""A configuration of `arithmetic` whose corpus is made, and whose model is trained, in milliseconds."""

from __future__ import annotations

from typing import Any

SMALL_EXPRESSIONS: dict[str, Any] = {
    "corpus": {"samples": 40, "validation_samples": 12, "max_depth": 1, "invalid_rate": 0.2},
    "model": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0, "positions": "rope"},
    "context": 64,
    "batch_size": 4,
    "evaluation_items": 10,
    "optimizer": {"learning_rate": 0.01},
}
