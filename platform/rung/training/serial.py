"""Serial replication: one seed after another, rung by rung."""

from __future__ import annotations

from rung.training.loop import train
from rung.training.replication import Replication
from rung.training.run import Run


class SerialReplication(Replication):
    """The runs of one configuration, trained one after another."""

    kind = "serial"

    def _train(self, level: float) -> None:
        for seed in self._seeds:
            if seed not in self._failed:
                with self._guarded(seed):
                    run = self._run(seed)
                    if not run.has_ended:
                        self._advance_run(run, level)
                    if run.has_ended:
                        run.let_go()

    def _advance_run(self, run: Run, level: float) -> None:
        recorder = self._recorder(run)
        recorder.enter()
        train(run, level, recorder)
        recorder.leave(run)
