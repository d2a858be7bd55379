"""Between Tune and our schedulers: hands a rung's aggregate to the rule, and its decisions to Tune and the ledger.

Tune's own ASHA cannot be used: it forgets its rungs on restore, never stops a NaN and knows nothing of seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from rung.errors import StorageError
from rung.results.aggregation import too_many_failed
from rung.tuning.ledger import Ledger
from rung.tuning.schedulers import Decision, Scheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class TuneScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's view of a `Scheduler`.

    Args:
        rule: decides at rungs.
        ledger: records what trials report and what is decided.
    """

    def __init__(self, rule: Scheduler, ledger: Ledger) -> None:
        super().__init__()
        self.storage_error: StorageError | None = None
        """Set when a trial could not write: results would be lost, so the whole sweep has to end."""
        self._rule = rule
        self._ledger = ledger
        self._trials: dict[str, Trial] = {}
        self._released: set[str] = set()
        self._given_up: dict[Trial, TuneController] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its scheduler for Tuner.restore, which is never used here: the ledger holds open files.
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        self._trials[_config_id(trial)] = trial

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """A paused configuration that may go on comes before one that has not started."""
        trials = tune_controller.get_trials()
        paused = (t for t in trials if t.status == Trial.PAUSED and _config_id(t) in self._released)
        pending = (t for t in trials if t.status == Trial.PENDING)
        return next(paused, None) or next(pending, None)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        config_id, level = result["name"], result["level"]
        if "storage_error" in result:
            self.storage_error = StorageError(result["storage_error"])
            return str(TrialScheduler.STOP)
        if "error" in result:
            self._lose(tune_controller, config_id, result["error"])
            return str(TrialScheduler.STOP)
        for run_id, message in result["set_aside"]:
            self._ledger.event("checkpoint_set_aside", message, config_id, run_id)
        for message in result["restarts"]:
            self._ledger.event("workers_restarted", message, config_id)
        self._ledger.report(config_id, result["rows"])
        if result["ended"]:
            self._finish(tune_controller, config_id, result["value"])
            return str(TrialScheduler.STOP)
        if level not in self._rule.levels_of(config_id):
            return str(TrialScheduler.CONTINUE)  # a milestone, where nothing is decided
        if too_many_failed(result["rows"]):
            # An accident is no result: nothing is decided, and the next command tries again.
            self._ledger.end(config_id, "failed", "half of its runs have failed or more: too few to judge it by")
            self._decide(tune_controller, self._rule.withdraw(config_id))
            return str(TrialScheduler.STOP)
        decided = self._rule.report(config_id, int(level), result["value"], result["margin"])
        own = [decision for decision in decided if decision.config_id == config_id]
        if level in self._ledger.levels_decided(config_id):
            return str(TrialScheduler.CONTINUE)  # a restarted trial tells again what was decided before
        self._ledger.decide(own)
        self._decide(tune_controller, [decision for decision in decided if decision.config_id != config_id])
        if not own:
            self._ledger.states[config_id] = "paused"
            self._released.discard(config_id)
            return str(TrialScheduler.PAUSE)
        return str(TrialScheduler.STOP if own[0].decision == "stop" else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """The process of a trial died."""
        config_id = _config_id(trial)
        if trial.should_recover() and trial.status == Trial.ERROR:
            # Tune is about to start it again, which it would never do if it still waited for the dead process to take
            # over the trial's task.
            tune_controller._resetting_trials.discard(trial)
            self._ledger.event("trial_restarted", "its process died; it goes on in another", config_id)
            return
        if trial.should_recover() and trial.temporary_state.ray_actor is None:
            # Tune hears twice of a process that dies while it takes over a task or saves: from the process and from
            # the task. The first time it has put the trial back into its queue; now it is about to give it up. As one
            # that has been given up already it is left alone, until `StartCallback` puts it back.
            tune_controller._set_trial_status(trial, Trial.ERROR)
            self._given_up[trial] = tune_controller
            return
        self._lose(tune_controller, config_id, "the process of this configuration died too often")

    def put_back(self, trial: Trial) -> None:
        """Lets Tune go on with a trial that it has given up without need; see `on_trial_error`."""
        controller = self._given_up.pop(trial, None)
        if controller is not None:
            controller._set_trial_status(trial, Trial.PENDING)

    def _lose(self, controller: TuneController, config_id: str, error: str) -> None:
        self._ledger.fail(config_id, error)
        self._decide(controller, self._rule.withdraw(config_id))

    def _finish(self, controller: TuneController, config_id: str, value: float | None) -> None:
        """A configuration none of whose runs can go on. It takes part in no further comparison, so that what is
        decided about the others does not depend on whether this driver or an earlier one saw it end."""
        failed = all(row["status"] == "failed" for row in self._ledger.runs[config_id].values())
        lost = sum(row["status"] == "failed" for row in self._ledger.runs[config_id].values())
        text = "no value" if value is None else f"value {value:.6g}"
        text += f", {lost} failed runs" if lost else ""
        text = f"ended at {self._ledger.reached(config_id):g} with {text}"
        self._ledger.end(config_id, "failed" if failed else "completed", text)
        self._decide(controller, self._rule.withdraw(config_id))

    def _decide(self, controller: TuneController, decisions: list[Decision]) -> None:
        """Records decisions on configurations that are paused, or about to be, and carries them out."""
        self._ledger.decide(decisions)
        for decision in decisions:
            if self._ledger.states[decision.config_id] in ("completed", "failed"):
                continue
            if decision.decision == "continue":
                self._released.add(decision.config_id)
                self._ledger.states[decision.config_id] = "waiting"
            elif decision.config_id in self._trials:
                controller.stop_trial(self._trials[decision.config_id])

    def debug_string(self) -> str:
        return f"rung: {self._rule.name}"


class StorageStopper(Stopper):  # type: ignore[misc]
    """Ends a sweep whose trials cannot write."""

    def __init__(self, scheduler: TuneScheduler) -> None:
        self._scheduler = scheduler

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._scheduler.storage_error is not None


class StartCallback(Callback):  # type: ignore[misc]
    """Tells the ledger when Tune starts a trial, or takes up a paused one, and the scheduler when it gives one up."""

    def __init__(self, ledger: Ledger, scheduler: TuneScheduler) -> None:
        self._ledger = ledger
        self._scheduler = scheduler

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled by Tune, never restored: see TuneScheduler

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ledger.start(_config_id(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._scheduler.put_back(trial)


def _config_id(trial: Trial) -> str:
    return str(trial.config["trial"]["name"])
