"""How often the models of an evaluation study are right, by what was asked: tables, and a figure in the study's folder.

    python -m trainables.arithmetic.evaluation_report arithmetic-evaluation
    python -m trainables.arithmetic.evaluation_report arithmetic-evaluation --by depth

All answers are judged anew from the table `generations`. The runs of a configuration are put together: an item counts
once, with the part of its answers that are right. Imports no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rung.errors import RungError
from rung.results.files import replace_file
from rung.results.query import StudyResults, load
from rung.results.views import dicts
from rung.trainable import find_trainable
from trainables.arithmetic.answers import Answer, Evaluation, Written, judged
from trainables.arithmetic.breakdown import KEYS, Group, breakdown, table
from trainables.arithmetic.evaluation_config import ArithmeticEvaluationConfig
from trainables.arithmetic.preparation import ensure_tokenizer
from trainables.arithmetic.questions import Question, question
from trainables.arithmetic.test_sets import test_set
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.language.command_line import guarded


@dataclass(frozen=True)
class Tested:
    """What the runs of a configuration answered."""

    config_id: str
    label: str
    runs: dict[int, Evaluation]
    """By seed."""

    @property
    def together(self) -> Evaluation:
        """All runs as one, their answers to an item side by side."""
        items = zip(*(run.by_item for run in self.runs.values()), strict=True)
        return Evaluation(
            [answer for answers in items for each in answers for answer in each],
            sum(run.samples for run in self.runs.values()),
        )

    def groups(self, key: str) -> list[Group]:
        """The items of all runs, broken down."""
        return breakdown(self.together, key)


def read_study(results: StudyResults) -> list[Tested]:
    """What a study's runs answered at their end, best configuration first.

    Raises:
        RungError: it is no evaluation of expressions, or nothing has been answered yet.
        StorageError: it cannot be read.
    """
    name = str(results.study["trainable"])
    if not issubclass(find_trainable(name).Config, ArithmeticEvaluationConfig):
        raise RungError(f"{results.directory.name} is a study of {name}: name one of arithmetic_evaluation")
    found = [_tested(results, entry.config_id, entry.label) for entry in results.summary()]
    answered = [each for each in found if each.runs]
    if not answered:
        raise RungError(f"no run of {results.directory.name} has answered its test set yet: run the study first")
    return answered


def _tested(results: StudyResults, config_id: str, label: str) -> Tested:
    columns = dicts(results.configurations.filter(f"config_id = '{config_id}'"))[0]
    config = ArithmeticEvaluationConfig.model_validate_json(columns["config_json"])
    written = dicts(
        results.query(
            f"SELECT seed, response FROM generations WHERE phase = 'search' AND config_id = '{config_id}' "
            'QUALIFY dense_rank() OVER (PARTITION BY seed ORDER BY step DESC) = 1 ORDER BY seed, "index"'
        )
    )
    tokenizer = Tokenizer.load(ensure_tokenizer(config))
    asked = [
        question(item, tokenizer, config.context, config.format, config.decoding) for item in test_set(config.test)
    ]
    runs: dict[int, list[str]] = {}
    for row in written:
        runs.setdefault(row["seed"], []).append(row["response"])
    return Tested(
        config_id, label, {seed: _evaluation(texts, asked, config, tokenizer) for seed, texts in runs.items()}
    )


def _evaluation(
    texts: Sequence[str], asked: Sequence[Question], config: ArithmeticEvaluationConfig, tokenizer: Tokenizer
) -> Evaluation:
    samples = config.decoding.samples
    each = [one for one in asked for _ in range(samples)]
    answers = [_answer(one, text, config, tokenizer) for one, text in zip(each, texts, strict=True)]
    return Evaluation(answers, samples)


def _answer(asked: Question, text: str, config: ArithmeticEvaluationConfig, tokenizer: Tokenizer) -> Answer:
    """The end token is no part of a text, so a text that fills its room counts as cut off."""
    tokens = len(tokenizer.encode(text))
    has_ended = tokens < asked.room
    return judged(asked, Written(text, tokens + has_ended, has_ended), config.format)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    results = load(chosen.study)
    tested = read_study(results)
    for each in tested:
        seeds = f"{len(each.runs)} seed{'s' if len(each.runs) != 1 else ''}"
        print(f"{each.config_id}  {each.label or 'the base configuration'}, {seeds}")
        print(table(each.groups(chosen.by), chosen.by), end="\n\n")
    folder = chosen.output or results.directory / "report"
    print(f"figure: {write_figure(tested, chosen.by, folder)}")
    return 0


def write_figure(tested: Sequence[Tested], key: str, folder: Path) -> Path:
    """Draws exact match by a key into `exact_match_by_<key>.png` and `.svg`; returns the first. Raises StorageError."""
    from rung.results.figure_style import png_bytes, svg_text
    from trainables.arithmetic.evaluation_figure import exact_match_figure

    figure = exact_match_figure(tested, key)
    png = folder / f"exact_match_by_{key}.png"
    replace_file(png, png_bytes(figure))
    replace_file(png.with_suffix(".svg"), svg_text(figure).encode())
    return png


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.evaluation_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help="a study of arithmetic_evaluation: its name, file or folder")
    parser.add_argument(
        "--by", choices=tuple(KEYS), default="operators", help="what items are told apart by (operators)"
    )
    parser.add_argument("--output", type=Path, help="folder of the figure; otherwise the study's report")
    return parser


if __name__ == "__main__":
    guarded(main)
