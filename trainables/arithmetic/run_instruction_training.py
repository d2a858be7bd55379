"""Goes on with a foundational model on problems as prompts: only the tokens of the solution count.

    python -m trainables.arithmetic.run_instruction_training --instruction-corpus-path data/instruction_corpus.jsonl \\
        --tokenizer-path data/tokenizer --output-dir models \\
        --foundational-checkpoint models/foundational_20260101_120000/best_model.safetensors

Leaves a folder models/instruction_<date>_<time> (`training_folder.py` says what is in it). Shape and format of the
model are those of the checkpoint. An interrupted run goes on with --resume-checkpoint FOLDER alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainables.arithmetic.training_command import command
from trainables.arithmetic.training_settings import InstructionSettings
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    return command(InstructionSettings, "trainables.arithmetic.run_instruction_training", __doc__, arguments)


if __name__ == "__main__":
    guarded(main)
