"""Goes on with an instruction model by reinforcement learning: it writes answers, and learns from which are right.

    python -m trainables.arithmetic.run_grpo_training --instruction-corpus data/instruction_corpus.jsonl \\
        --tokenizer data/tokenizer --output-dir models \\
        --sft-checkpoint models/instruction_20260101_120000/best_model.safetensors

    python -m trainables.arithmetic.run_grpo_training --data-mode generated --num-samples 1024 --max-depth 5 \\
        --tokenizer data/tokenizer --output-dir models \\
        --sft-checkpoint models/instruction_20260101_120000/best_model.safetensors

Leaves a folder models/grpo_<date>_<time> (`training_folder.py` says what is in it; the log is grpo_training_log.json).
best_model.safetensors has the highest rate of right greedy answers to held-out expressions. An interrupted run goes on
with --resume-checkpoint FOLDER alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainables.arithmetic.grpo_settings import GrpoSettings
from trainables.arithmetic.training_command import command
from trainables.language.command_line import guarded

if TYPE_CHECKING:
    from trainables.arithmetic.model_settings import ModelSettings
    from trainables.arithmetic.training_plan import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    module = "trainables.arithmetic.run_grpo_training"
    return command(GrpoSettings, module, __doc__, arguments, planned=_planned)


def _planned(settings: GrpoSettings, model: ModelSettings | None) -> Plan:
    from trainables.arithmetic.grpo_plan import plan

    return plan(settings, model)


if __name__ == "__main__":
    guarded(main)
