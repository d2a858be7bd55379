"""What models wrote, for the report: the newest texts of the best configurations (table `generations`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.results.tables import ConfigurationSummary
from rung.results.views import dicts

if TYPE_CHECKING:
    from rung.results.query import StudyResults

MOST_RUNS, MOST_TEXTS, MOST_LETTERS = 3, 6, 600
"""Configurations, one run of each; texts of a run; letters of a text. The rest is in the table."""
_MOST_ANSWERS = 20
"""Answers to one question that are looked past to find the next question."""


@dataclass(frozen=True, slots=True)
class WrittenText:
    """One text, cut where it is long."""

    prompt: str
    """What the model was given."""
    response: str
    """What it wrote, without the prompt."""
    gold: str | None
    """The right answer; None where there is none."""
    is_right: bool | None
    """None where there is nothing to be right about."""


@dataclass(frozen=True, slots=True)
class WrittenByRun:
    """Some texts that a run's model wrote at the last step at which it was asked."""

    label: str
    """Of its configuration: what was varied, with the values it has."""
    run_id: str
    """Its id."""
    seed: int
    """Of the run."""
    step: int
    """Optimizer steps done when it wrote them."""
    texts: Sequence[WrittenText]
    """In the order in which they were asked for, the first few."""


def newest_texts(results: "StudyResults", ranking: Sequence[ConfigurationSummary]) -> list[WrittenByRun]:
    """Of the best configurations that wrote anything, best first; of each the run with the lowest seed."""
    rows = dicts(
        results.query(
            "SELECT config_id, run_id, seed, step, prompt, response, gold, reward FROM generations "
            "WHERE phase = 'search' "
            "QUALIFY dense_rank() OVER (PARTITION BY config_id ORDER BY seed, step DESC) = 1 "
            f'AND "index" < {MOST_TEXTS * _MOST_ANSWERS} ORDER BY config_id, "index"'
        )
    )
    by_configuration: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        texts = by_configuration.setdefault(row["config_id"], [])
        if len(texts) < MOST_TEXTS and not _is_another_answer(row, texts):
            texts.append(row)
    chosen = [entry for entry in ranking if entry.config_id in by_configuration][:MOST_RUNS]
    return [_written(entry.label, by_configuration[entry.config_id]) for entry in chosen]


def _is_another_answer(row: Mapping[str, Any], before: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a text answers a question that has been answered; without a right answer it is no question."""
    question = (row["prompt"], row["gold"])
    return row["gold"] is not None and any((each["prompt"], each["gold"]) == question for each in before)


def sampled_run(results: "StudyResults") -> str | None:
    """A run that wrote something and has kept its checkpoint, of the best configuration that has one; None: none."""
    return _best_kept(results, "generations")


def best_kept_run(results: "StudyResults") -> str | None:
    """A run that has kept its checkpoint, of the best configuration that has one; None: none has."""
    return _best_kept(results, "runs")


def _best_kept(results: "StudyResults", table: str) -> str | None:
    """Of the runs that a table has."""
    rows = dicts(results.query(f"SELECT DISTINCT run_id, config_id FROM {table} ORDER BY run_id"))
    checkpoints = results.directory / "checkpoints"
    kept = {row["config_id"]: row["run_id"] for row in reversed(rows) if (checkpoints / row["run_id"]).is_dir()}
    ranking = [entry.config_id for entry in (*results.summary("confirm"), *results.summary())]
    return next((kept[config_id] for config_id in ranking if config_id in kept), None)


def _written(label: str, rows: Sequence[dict[str, Any]]) -> WrittenByRun:
    texts = [
        WrittenText(
            _cut(row["prompt"]),
            _cut(row["response"]),
            row["gold"],
            None if row["gold"] is None or row["reward"] is None else row["reward"] > 0,
        )
        for row in rows
    ]
    return WrittenByRun(label or "base", rows[0]["run_id"], rows[0]["seed"], rows[0]["step"], texts)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} …"
