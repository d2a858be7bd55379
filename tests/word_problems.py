"""A configuration of `word_problems` whose model is trained in milliseconds: sums, and a model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUESTIONS = {"train": range(7), "test": range(50, 55)}


def small_word_problems(folder: Path, **model: Any) -> dict[str, Any]:
    """Writes questions and a model into a folder, which RUNG_DATA must name; returns a configuration of them.

    Args:
        folder: the data folder.
        model: as for `tiny_model_folder`.
    """
    from tests.tiny_model import tiny_model_folder  # brings torch, which a plan that looks for `letters` does without

    for split, numbers in QUESTIONS.items():
        rows = [{"question": f"{first} and 3?", "answer": f"It is.\n#### {first + 3}"} for first in numbers]
        path = folder / "sums" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_model_folder(folder / "tiny", **model)
    return {
        "model": {"model": "tiny", "adapter": {"rank": 2}},
        "data": {"name": "sums"},
        "prompt": {"system": "Add."},
        "rewards": {"own": {"letters": {"function": "tests.word_problems:letters"}}},
        "rollout": {"prompts": 2, "group": 3, "tokens": 6},
        "decoding": {"tokens": 6, "samples": 3, "ks": [1, 2, 3]},
        "optimizer": {"learning_rate": 0.01},
    }


def letters(prompts: list[str], responses: list[str], answers: list[str]) -> list[float]:
    """A reward that even random weights get a part of: the share of letters."""
    return [sum(character.isalpha() for character in text) / max(1, len(text)) for text in responses]
