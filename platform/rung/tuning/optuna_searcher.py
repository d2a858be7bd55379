"""Optuna's TPE as the one who chooses configurations: our own small searcher, because it must know of seeds.

Optuna is told one value per configuration, the aggregate over its seeds. What earlier drivers have tried is told
first, and what they left unfinished is continued before anything new is chosen. With several trials at a time the
choices depend on the order in which values arrive; every configuration is in the tables all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from ray.tune.search import Searcher

from rung.configuration import PlannedConfiguration, Resolver, at
from rung.space import Distribution, is_among
from rung.tuning.ledger import Ledger

TRIES = 50
"""Choices that only repeat known configurations before the search counts as exhausted."""


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Suggests up to `samples` configurations.

    Args:
        resolver: makes configurations of values.
        samples: how many configurations there are to be, those of earlier drivers included.
        seed: of the sampler.
        mode: whether less or more of the aggregate is better.
        ledger: knows the earlier ones; told of new ones.
        task: makes the trial's parameters of a configuration.
        record: writes a new configuration into its table.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        samples: int,
        seed: int,
        mode: str,
        ledger: Ledger,
        task: Callable[[PlannedConfiguration], Any],
        record: Callable[[PlannedConfiguration], None],
    ) -> None:
        super().__init__(metric="value", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._resolver = resolver
        self._distributions = [dimension.distribution() for dimension in resolver.ordered]
        self._samples = samples
        self._ledger = ledger
        self._task = task
        self._record = record
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            direction="maximize" if mode == "max" else "minimize",
        )
        self._asked: dict[str, optuna.Trial] = {}
        self._unfinished: list[PlannedConfiguration] = []
        self._resumed: dict[str, PlannedConfiguration] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for Tuner.restore, which is never used here: the ledger holds open files.
        return {}

    def resume(self, configuration: PlannedConfiguration) -> None:
        """Puts a configuration that an earlier driver began before all new ones."""
        self._unfinished.append(configuration)

    def learn(self, values: Mapping[str, Any], aggregate: float) -> None:
        """Takes in what a configuration of an earlier driver ended with."""
        active = {
            distribution.path: (distribution, at(values, distribution.path))
            for distribution in self._distributions
            if all(is_among(at(values, path), wanted) for path, wanted in distribution.when)
        }
        self._study.add_trial(
            optuna.trial.create_trial(
                params={path: _parameter(distribution, value) for path, (distribution, value) in active.items()},
                distributions={path: _distribution(distribution) for path, (distribution, _) in active.items()},
                value=aggregate,
            )
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration, or FINISHED."""
        if self._unfinished:
            self._resumed[trial_id] = self._unfinished.pop(0)
            return {"trial": self._task(self._resumed[trial_id])}
        for _ in range(TRIES):
            if len(self._ledger.states) >= self._samples:
                return str(Searcher.FINISHED)
            trial = self._study.ask()
            values = {distribution.path: _suggest(trial, distribution) for distribution in self._distributions}
            configuration = self._resolver.chosen(values, index=len(self._ledger.states))
            if configuration.config_id not in self._ledger.states:
                self._asked[trial_id] = trial
                self._record(configuration)
                return {"trial": self._task(configuration)}
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Optuna is told of rungs only through the value at the end."""

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna the aggregate that a configuration ended with."""
        value = None if error or result is None else result.get("value")
        resumed, trial = self._resumed.pop(trial_id, None), self._asked.pop(trial_id, None)
        if resumed is not None and value is not None:
            self.learn(resumed.values, float(value))
        elif trial is not None and value is not None:
            self._study.tell(trial, float(value))
        elif trial is not None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was tried is in the study's own tables."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def _distribution(distribution: Distribution) -> Any:
    """Optuna's form of a distribution. It wants plain choices, so values of any kind are chosen by their place."""
    if distribution.kind == "categorical":
        return optuna.distributions.CategoricalDistribution(tuple(range(len(distribution.choices))))
    low, high = distribution.low, distribution.high
    if distribution.kind == "integer":
        return optuna.distributions.IntDistribution(int(low), int(high), log=distribution.log)
    return optuna.distributions.FloatDistribution(low, high, log=distribution.log)


def _parameter(distribution: Distribution, value: Any) -> Any:
    """What Optuna calls a value of ours."""
    if distribution.kind == "categorical":
        return next(place for place, choice in enumerate(distribution.choices) if is_among(value, [choice]))
    return value


def _suggest(trial: optuna.Trial, distribution: Distribution) -> Any:
    """A value of ours that Optuna chooses."""
    path, low, high = distribution.path, distribution.low, distribution.high
    if distribution.kind == "categorical":
        return distribution.choices[trial.suggest_categorical(path, range(len(distribution.choices)))]
    if distribution.kind == "integer":
        return distribution.snap(trial.suggest_int(path, int(low), int(high), log=distribution.log))
    return distribution.snap(trial.suggest_float(path, low, high, log=distribution.log))
