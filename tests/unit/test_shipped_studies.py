"""Every study and pipeline in `search_spaces/` is loaded and planned, and says of itself what is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.pipeline import load_pipeline
from rung.pipeline_plan import plan_stages
from rung.plan import make_plan
from rung.study import load_study
from tests.shipped import PIPELINES, ROOT, STUDIES

HOMEWORK = sorted((ROOT / "modular_arithmetic").glob("e[0-9]-*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_study_can_be_planned(path: Path) -> None:
    study = load_study(path)
    plan = make_plan(study)
    assert study.study == path.stem
    assert plan.count >= 1
    assert plan.cost.rows > 0


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_study_explains_itself(path: Path) -> None:
    comment = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "?" in comment  # the question it asks
    assert "# Source:" in comment
    assert "# Look at:" in comment
    plan = make_plan(load_study(path))
    assert f"# Plan: {plan.product};" in comment
    if plan.cost.most_steps is not None:  # a budget of time does not say how many
        assert f"{plan.cost.most_steps:,} steps" in comment


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_pipeline_can_be_planned_and_explains_itself(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path))
    pipeline = load_pipeline(path)
    assert pipeline.name == path.stem
    plans = plan_stages(pipeline)
    comment = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "?" in comment  # the question it asks
    assert "# Look at:" in comment
    assert f"# Plan: {len(plans)} stages, {sum(each.plan.runs for each in plans)} runs" in comment


def test_the_homework_is_whole() -> None:
    """108 runs and 1,520,108 steps, counted from the handout: LSTM 920,058 and GPT 600,050."""
    plans = [make_plan(load_study(path)) for path in HOMEWORK]
    assert sum(plan.runs for plan in plans) == 108
    assert sum(plan.cost.most_steps or 0 for plan in plans) == 1_520_108
    steps = {"lstm": 0, "gpt": 0}
    for plan in plans:
        for configuration in plan.configurations:
            steps[configuration.values["model"]["kind"]] += plan.rungs[-1] * len(plan.study.seeds)
    assert steps == {"lstm": 920_058, "gpt": 600_050}


def test_the_demo_is_large_enough_to_show_something() -> None:
    plan = make_plan(load_study(ROOT / "modular_arithmetic" / "demo.yaml"))
    assert plan.count >= 6
    assert len(plan.study.seeds) >= 4
    assert len(plan.rungs) >= 2
