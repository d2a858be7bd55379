"""Which checkpoints stay when a sweep is over: by default those of the best configuration, none of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

from rung.plan import Plan
from rung.study import Study
from rung.tuning.goal import aggregation_of
from rung.tuning.ledger import Ledger


def keep_checkpoints(directory: Path, study: Study, plan: Plan, ledger: Ledger) -> None:
    """Deletes the checkpoints that `checkpoints.keep` does not ask for. Those of unfinished configurations stay."""
    if study.checkpoints.keep == "all":
        return
    best = _best(study, plan, ledger) if study.checkpoints.keep == "best" else None
    for config_id, state in ledger.states.items():
        if state in ("completed", "stopped") and config_id != best:
            for row in ledger.runs[config_id].values():
                shutil.rmtree(directory / "checkpoints" / row["run_id"], ignore_errors=True)


def _best(study: Study, plan: Plan, ledger: Ledger) -> str | None:
    values: dict[str, float] = {}
    for configuration in plan.configurations:
        if ledger.states[configuration.config_id] == "completed":
            rows = ledger.runs[configuration.config_id].values()
            value = aggregation_of(study, configuration.config).value(rows)
            if value is not None:
                values[configuration.config_id] = value
    if not values:
        return None
    choose = max if study.metric.mode == "max" else min
    return choose(values, key=lambda config_id: values[config_id])
