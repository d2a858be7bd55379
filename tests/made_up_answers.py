"""Answers to questions on disk, for tests of what compares and shows them: rows of the table `generations`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rung.results.store import TableWriter
from tests.made_up_studies import FRESH, MadeUp, write_study

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

Right = Sequence[Sequence[bool]]
"""Question by question, whether each answer to it is right."""


@dataclass(frozen=True)
class Answered:
    """The answers of one run at one step."""

    right: Right
    configuration: int = 0
    seed: int = 0
    """From `FRESH` on in phase confirm."""
    step: int = 0
    prompts: Sequence[str] = ()
    """In place of `What is 1 + n?`."""
    responses: Mapping[int, str] = field(default_factory=dict)
    """Question to its first response, in place of one that says the answer."""
    reward: float = 1.0
    """Of a right answer."""


def single(*right: int) -> Right:
    """One answer to each question; 1 is right."""
    return [[bool(each)] for each in right]


def write_answered_study(directory: Path, made_up: MadeUp, answered: Sequence[Answered]) -> Path:
    """Write a study as `write_study` does, with answers; returns its directory."""
    write_study(directory, made_up)
    with TableWriter(directory, "generations", "all") as writer:
        for each in answered:
            _write(writer, directory.name, made_up, each)
    return directory


def _write(writer: TableWriter, study: str, made_up: MadeUp, answered: Answered) -> None:
    config_id, phase = made_up.config_id(answered.configuration), "confirm" if answered.seed >= FRESH else "search"
    run_id = f"{config_id}-s{answered.seed}" + ("-confirm" if phase == "confirm" else "")
    about = {"study": study, "config_id": config_id, "run_id": run_id, "seed": answered.seed, "phase": phase}
    index = 0
    for number, answers in enumerate(answered.right):
        gold = str(1 + number)
        prompt = answered.prompts[number] if answered.prompts else f"What is 1 + {number}?"
        for place, is_right in enumerate(answers):
            said = gold if is_right else "-1"
            response = f"Let me think about it for a moment. It must be {said}"
            if place == 0:
                response = answered.responses.get(number, response)
            texts = {"prompt": prompt, "response": response, "extracted": said, "gold": gold}
            reward = answered.reward * is_right
            writer.add({**about, "step": answered.step, "index": index, **texts, "reward": reward, "reported_at": NOW})
            index += 1
