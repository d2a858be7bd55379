"""Which checkpoints stay when a sweep is over: by default those of the best configuration, none of the others."""

from __future__ import annotations

import shutil
from typing import Literal

from rung.results.query import load
from rung.tuning.ledger import Ledger


def keep_checkpoints(ledger: Ledger, keep: Literal["none", "best", "all"]) -> None:
    """Deletes the checkpoints that `keep` does not ask for. Configurations that the same command would go on with,
    because they are unfinished or have a failed run, keep theirs."""
    if keep == "all":
        return
    ended = {
        config_id
        for config_id, state in ledger.states.items()
        if state in ("completed", "stopped")
        and all(row["status"] != "failed" for row in ledger.runs[config_id].values())
    }
    if keep == "best":
        # The table that the user is shown decides which one is best.
        ended -= {entry.config_id for entry in load(ledger.directory).summary()[:1]}
    for config_id in ended:
        for row in ledger.runs[config_id].values():
            shutil.rmtree(ledger.directory / "checkpoints" / row["run_id"], ignore_errors=True)
