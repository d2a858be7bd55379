"""What models answered to questions that have a right answer (table `generations`), and what changed between two steps.

    for change in changes_in(read_answers(rung.load("demo"))):    # each configuration: its first answers and its last
        print(change.label, change.before.mean, change.after.mean, change.difference)

A row is graded if it has a gold answer and a reward of 1 (right) or 0 (wrong); runs with other rewards are left out. A
question is a prompt with its gold answer. Of several answers to a question the first (lowest `index`) counts, which is
the greedy one where a trainable writes one; the mean over all of them stands beside it. Nothing heavy is imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rung.results.budget import is_asked_for, run_rows
from rung.results.mcnemar import PairedAnswers
from rung.results.schema import Phase
from rung.results.significance import paired_interval
from rung.results.statistics import MeanInterval, mean_interval

if TYPE_CHECKING:
    from rung.results.query import StudyResults

FEWEST_QUESTIONS = 10
"""Questions below which nothing is compared: a few sample texts are no test set."""


@dataclass(frozen=True, eq=False)
class AnswerSheet:
    """The graded answers of a run at one step."""

    config_id: str
    run_id: str
    seed: int
    phase: Phase
    step: int
    questions: npt.NDArray[np.uint64]
    """A number for each question, ascending; the same in all studies."""
    right: npt.NDArray[np.bool_]
    """Whether the first answer to each is right."""
    share: npt.NDArray[np.float64]
    """Part of all answers to each that are right."""
    samples: int
    """Most answers to one question."""


@dataclass(frozen=True, eq=False)
class RunChange:
    """The same questions answered twice: by a run at two steps, or by two runs with the same seed."""

    before: AnswerSheet
    after: AnswerSheet
    counts: PairedAnswers
    """First answers to the questions of both."""
    all_answers: tuple[MeanInterval, MeanInterval, MeanInterval] | None
    """Part of all answers that are right before and after and the difference, means over questions with t intervals;
    None with one answer to a question."""
    unpaired: tuple[int, int]
    """Questions that only one side was asked."""


@dataclass(frozen=True, eq=False)
class ConfigurationChange:
    """What changed, in all runs of a configuration."""

    config_id: str
    label: str
    origin: str
    """The configuration before, where that is one of another study: its label."""
    phase: Phase
    runs: tuple[RunChange, ...]
    """By seed, ascending; at least one."""
    left_out: tuple[str, ...] = ()
    """Runs that diverged or failed, in words: their last answers are not those of their end."""

    @property
    def is_over_seeds(self) -> bool:
        """Whether the means are over runs, with Student-t intervals; else they are of one run, over its questions."""
        return len(self.runs) > 1

    @property
    def before(self) -> MeanInterval:
        """Part of the questions that were answered right before."""
        return self._mean("before")

    @property
    def after(self) -> MeanInterval:
        """Part of the questions that were answered right after."""
        return self._mean("after")

    @property
    def difference(self) -> MeanInterval:
        """After minus before."""
        if not self.is_over_seeds:
            return self.runs[0].counts.difference
        return paired_interval(self._shares("after"), self._shares("before"))

    def _mean(self, side: str) -> MeanInterval:
        if self.is_over_seeds:
            return mean_interval(self._shares(side))
        interval: MeanInterval = getattr(self.runs[0].counts, side)
        return interval

    def _shares(self, side: str) -> list[float]:
        return [getattr(run.counts, side).mean for run in self.runs]


def change_of(before: AnswerSheet, after: AnswerSheet) -> RunChange | None:
    """What changed from one sheet to the other; None with fewer than `FEWEST_QUESTIONS` questions in both."""
    common, one, other = np.intersect1d(before.questions, after.questions, assume_unique=True, return_indices=True)
    if len(common) < FEWEST_QUESTIONS:
        return None
    was, now = before.right[one], after.right[other]
    counts = (was & now, ~was & now, was & ~now, ~was & ~now)
    all_answers = None
    if max(before.samples, after.samples) > 1:
        first, second = before.share[one], after.share[other]
        all_answers = mean_interval(first), mean_interval(second), paired_interval(second, first)
    return RunChange(
        before,
        after,
        PairedAnswers(*(int(np.count_nonzero(kind)) for kind in counts)),
        all_answers,
        (len(before.questions) - len(common), len(after.questions) - len(common)),
    )


# ------------------------------------------------------------------------------------------- what is compared


def changes_in(everyone: Sequence["ConfigurationAnswers"]) -> list[ConfigurationChange]:
    """Of every configuration the first step at which its answers were recorded against the last one."""
    found = []
    for answers in everyone:
        several = {seed: sheets for seed, sheets in answers.sheets.items() if len(sheets) > 1}
        runs = change_by_seed(
            {seed: sheets[0] for seed, sheets in several.items()},
            {seed: sheets[-1] for seed, sheets in several.items()},
        )
        if runs:
            found.append(
                ConfigurationChange(answers.config_id, answers.label, "", answers.phase, runs, answers.left_out)
            )
    return found


def changes_between(
    before: Sequence["ConfigurationAnswers"], after: Sequence["ConfigurationAnswers"]
) -> list[ConfigurationChange]:
    """The last answers of every configuration of a study against those of a configuration of another one that was
    asked the same questions, seed by seed.

    That is the one with most questions in common, at least half of those of the shorter test; of several the one with
    the same label, else the first. Configurations without such a partner are left out.
    """
    found = []
    for answers in after:
        ranked = [(_overlap(partner, answers), partner.label == answers.label, partner) for partner in before]
        overlap, _, partner = max(ranked, key=lambda entry: entry[:2], default=(0.0, False, answers))
        runs = change_by_seed(partner.last, answers.last) if overlap >= 0.5 else ()
        if runs:
            left_out = (*answers.left_out, *(f"{text} before" for text in partner.left_out))
            found.append(
                ConfigurationChange(answers.config_id, answers.label, partner.label, answers.phase, runs, left_out)
            )
    return found


def change_by_seed(before: Mapping[int, AnswerSheet], after: Mapping[int, AnswerSheet]) -> tuple[RunChange, ...]:
    """What changed with each seed that both sides have, ascending."""
    changes = [change_of(before[seed], after[seed]) for seed in sorted(before.keys() & after.keys())]
    return tuple(change for change in changes if change is not None)


def _overlap(one: "ConfigurationAnswers", other: "ConfigurationAnswers") -> float:
    """Part of the questions of the shorter test that are in both; 0 without a common seed."""
    for seed in sorted(one.last.keys() & other.last.keys()):
        first, second = one.last[seed].questions, other.last[seed].questions
        return len(np.intersect1d(first, second, assume_unique=True)) / min(len(first), len(second))
    return 0.0


# ------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class ConfigurationAnswers:
    """The graded answers of a configuration, of phase confirm where that has any."""

    config_id: str
    label: str
    phase: Phase
    sheets: Mapping[int, tuple[AnswerSheet, ...]]
    """By seed: at the first and at the last step at which answers were recorded; one if that is the same."""
    left_out: tuple[str, ...]
    """As in `ConfigurationChange`."""

    @property
    def last(self) -> dict[int, AnswerSheet]:
        """The last sheet of each seed."""
        return {seed: sheets[-1] for seed, sheets in self.sheets.items()}


def read_answers(results: "StudyResults", ranking: Sequence[str] = ()) -> list[ConfigurationAnswers]:
    """The configurations that have answered, in the order of `ranking` (config_ids), then of the plan."""
    sheets = _read_sheets(results)
    if not sheets:
        return []
    study, found = results.study, []
    runs = [run for run in run_rows(results, ("run_id", "config_id", "seed", "phase")) if is_asked_for(run, study)]
    labels = dict(results.configurations.order("plan_index, config_id").select("config_id, label").fetchall())
    for config_id in dict.fromkeys([*(known for known in ranking if known in labels), *labels]):
        own = [run for run in runs if run["config_id"] == config_id]
        for phase in ("confirm", "search"):
            answers = _of_phase(config_id, labels[config_id], phase, own, sheets)
            if answers.sheets:
                found.append(answers)
                break
    return found


def _of_phase(
    config_id: str, label: str, phase: Phase, runs: Sequence[Mapping[str, Any]], sheets: Mapping[str, list[AnswerSheet]]
) -> ConfigurationAnswers:
    there = sorted((run for run in runs if run["phase"] == phase), key=lambda run: run["seed"])
    ended_badly = [run for run in there if run["status"] in ("diverged", "failed")]
    fine = [run for run in there if run not in ended_badly]
    by_seed = {run["seed"]: tuple(sheets[run["run_id"]]) for run in fine if run["run_id"] in sheets}
    left_out = tuple(f"seed {run['seed']} {run['status']}" for run in ended_badly)
    return ConfigurationAnswers(config_id, label, phase, by_seed, left_out)


_SHEETS = """
    WITH graded AS (
        SELECT *, hash(prompt, gold) AS question FROM generations WHERE gold IS NOT NULL
        QUALIFY step = min(step) OVER (PARTITION BY run_id) OR step = max(step) OVER (PARTITION BY run_id)
    )
    SELECT run_id, any_value(config_id), any_value(seed), any_value(phase), step, question,
           arg_min(reward, "index"), avg(reward), count(*), bool_and(coalesce(reward IN (0, 1), false))
    FROM graded GROUP BY run_id, step, question ORDER BY run_id, step, question
"""


def _read_sheets(results: "StudyResults") -> dict[str, list[AnswerSheet]]:
    """By run_id, in the order of the steps; runs with a reward that is neither 0 nor 1 have none."""
    columns = list(results.query(_SHEETS).fetchnumpy().values())
    run_ids, steps = columns[0], columns[4]
    borders = np.flatnonzero((run_ids[1:] != run_ids[:-1]) | (steps[1:] != steps[:-1])) + 1
    found: dict[str, list[AnswerSheet]] = {}
    ungraded = set()
    for part in np.split(np.arange(len(run_ids)), borders):
        if not len(part):
            continue
        run_id, config_id, seed, phase, step = (column[part[0]] for column in columns[:5])
        questions, first, share, count, is_graded = (np.ma.getdata(column[part]) for column in columns[5:])
        sheet = AnswerSheet(
            config_id, run_id, int(seed), phase, int(step), questions, first == 1, share, int(count.max())
        )
        found.setdefault(run_id, []).append(sheet)
        if not is_graded.all():
            ungraded.add(run_id)
    return {run_id: sheets for run_id, sheets in found.items() if run_id not in ungraded}
