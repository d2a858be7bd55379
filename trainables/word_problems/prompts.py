"""What a model is told before a word problem, as the messages of a chat. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from rung.errors import RungError
from rung.settings import StrictModel
from trainables.language.find_file import find_file
from trainables.word_problems.extraction import ANSWER, END_ANSWER, END_THINK, THINK
from trainables.word_problems.problem_files import WordProblem

SYSTEM_PROMPT = f"""\
Solve the problem step by step, then give the answer. Write in this form:
{THINK}
your steps
{END_THINK}
{ANSWER}
the number
{END_ANSWER}
Keep your answer short."""


class PromptConfig(StrictModel):
    """How a problem is put to the model."""

    system: str = SYSTEM_PROMPT
    """What the chat begins with; empty: with the problem. The default asks for a think block and an answer block, which
    the rewards look for."""
    system_path: str | None = None
    """A text file that holds it instead, from the working directory on."""
    examples: int = Field(default=0, ge=0)
    """Solved problems that are shown before the one to solve. They are taken out of the training problems."""

    @model_validator(mode="after")
    def _one_of_them(self) -> PromptConfig:
        if self.system_path is not None and self.system != SYSTEM_PROMPT:
            raise ValueError("system and system_path both say what the system prompt is: give one of them")
        return self

    @property
    def file(self) -> Path | None:
        """The file of the system prompt, if it is in one.

        Raises:
            RungError: there is no such file.
        """
        if self.system_path is None:
            return None
        found = find_file(Path(self.system_path))
        if found is None:
            raise RungError(
                f"prompt.system_path: there is no file {self.system_path} in {Path.cwd()} or on the import path"
            )
        return found

    def text(self) -> str:
        """The system prompt.

        Raises:
            RungError: its file is not there, or cannot be read as UTF-8.
        """
        file = self.file
        if file is None:
            return self.system
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RungError(f"prompt.system_path: {file} cannot be read: {error}") from error


def chat(system: str, examples: Sequence[WordProblem], question: str) -> list[dict[str, str]]:
    """The messages that a question is put with, each with `role` and `content`: what chat templates take.

    Args:
        system: the system prompt; empty: there is no such message.
        examples: solved problems, each a question and an answer in the form that is asked for.
        question: what is to be answered.
    """
    messages = [{"role": "system", "content": system}] if system else []
    for example in examples:
        messages.append({"role": "user", "content": example.question})
        messages.append({"role": "assistant", "content": solved(example)})
    return [*messages, {"role": "user", "content": question}]


def solved(problem: WordProblem) -> str:
    """The solution of a problem in the form that the default system prompt asks for."""
    return f"{THINK}\n{problem.solution}\n{END_THINK}\n{ANSWER}\n{problem.answer}\n{END_ANSWER}"
