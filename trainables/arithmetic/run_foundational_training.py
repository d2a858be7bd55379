"""Trains a decoder on whole items: problems and their solutions.

    python -m trainables.arithmetic.run_foundational_training --corpus-path data/foundational_corpus.txt \\
        --tokenizer-path data/tokenizer --output-dir models --num-epochs 10 --batch-size 16

Leaves a folder models/foundational_<date>_<time> (`training_folder.py` says what is in it). An interrupted run goes on
with --resume-checkpoint FOLDER alone, to the same numbers as without the interruption.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainables.arithmetic.training_command import command
from trainables.arithmetic.training_settings import FoundationalSettings
from trainables.language.command_line import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    return command(FoundationalSettings, "trainables.arithmetic.run_foundational_training", __doc__, arguments)


if __name__ == "__main__":
    guarded(main)
