"""Serial replication: one seed after another, rung by rung."""

from __future__ import annotations

from rung.training.loop import train
from rung.training.replication import Replication


class SerialReplication(Replication):
    """The runs of one configuration, trained one after another."""

    kind = "serial"

    def _train(self, level: float) -> None:
        for seed in self._seeds:
            if seed not in self._failed:
                with self._guarded(seed):
                    self._advance_run(seed, level)

    def _advance_run(self, seed: int, level: float) -> None:
        run = self._run(seed)
        if run.has_ended:
            return
        recorder = self._recorder(run)
        recorder.enter()
        train(run, level, recorder)
        recorder.leave(run)
