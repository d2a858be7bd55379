"""What the engine offers every trainable beyond the plain step: parts of a batch, precision, rows between evaluations,
texts, data that must be there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rung.errors import RungError, StorageError
from rung.plan import make_plan
from rung.results.query import load
from rung.results.report import write_report
from rung.results.written import newest_texts
from rung.settings import OptimizerConfig, ScheduleConfig
from rung.study import load_study, study_json
from rung.trainable import Generation, Reference, Sampling
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoints import load_checkpoint, load_weights, resume, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.optimizers import build_optimizer
from rung.training.replication import start
from rung.training.run import Report, Run
from rung.training.schedules import learning_rate
from rung.tuning.retention import keep_checkpoints
from rung.tuning.sample import sample
from rung.tuning.sweep import run_sweep
from tests.launching import launch
from tests.toy import Toy, ToyConfig

GOAL = Goal("steps", 20, "validation/loss", "min")


class Writer(Toy):
    """A toy that writes what its bias is."""

    @classmethod
    def references(cls, config: ToyConfig) -> Mapping[str, Sequence[Reference]]:
        return {"validation/loss": [Reference("noise of the labels", config.noise**2)]}

    @classmethod
    def missing(cls, config: ToyConfig) -> str | None:
        return "there is no ink: buy some" if config.batch_size == 99 else None

    def generations(self, model: nn.Module) -> list[Generation]:
        assert not model.training
        return [Generation("bias?", f"{model.bias.item():.3f}", gold="0.000", reward=0.0)]

    def complete(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        return [f" {model.bias.item():.3f}" * sampling.tokens for _ in prompts]


class Memory(NullRecorder):
    """Keeps reports and rows between them."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.logs: list[Report] = []

    def report(self, run: Run, report: Report) -> None:
        self.reports.append(report)

    def log(self, run: Run, report: Report) -> None:
        self.logs.append(report)


def run_of(seed: int = 0, goal: Goal = GOAL, **values: Any) -> Run:
    return Run(Toy(ToyConfig.model_validate(values), seed), "run", goal)


def trained(**values: Any) -> tuple[Run, Memory]:
    run, memory = run_of(**values), Memory()
    train(run, math.inf, memory)
    return run, memory


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_takes_the_same_steps_within_rounding(parts: int) -> None:
    whole, expected = trained()
    split, found = trained(accumulation=parts)
    assert torch.allclose(whole.model.weight, split.model.weight, rtol=1e-5)
    assert whole.progress.tokens == split.progress.tokens
    for one, other in zip(expected.reports[1:], found.reports[1:], strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)


def test_a_batch_that_has_not_so_many_parts_is_refused() -> None:
    with pytest.raises(RungError, match="a batch of 8 items has no 9 parts"):
        trained(accumulation=9)


def test_only_matrices_are_decayed_on_request() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    decayed, others = build_optimizer(OptimizerConfig(decay="matrices", weight_decay=0.1), model).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]
    assert decayed["weight_decay"] == 0.1
    assert len(others["params"]) == 3
    assert others["weight_decay"] == 0.0
    (whole,) = build_optimizer(OptimizerConfig(weight_decay=0.1), model).param_groups
    assert len(whole["params"]) == 4


def test_float16_scales_its_loss_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    straight, _ = trained(precision="fp16")
    assert math.isfinite(straight.progress.value or math.nan)
    halted = run_of(precision="fp16")
    train(halted, 7, NullRecorder())
    assert halted.scaling.state()["_growth_tracker"] > 0
    checkpoint = save_checkpoint(halted, tmp_path)
    resumed = run_of(precision="fp16")
    load_checkpoint(resumed, checkpoint)
    assert resumed.scaling.state() == halted.scaling.state()
    train(resumed, math.inf, NullRecorder())
    assert torch.equal(straight.model.weight, resumed.model.weight)


def test_rows_between_evaluations_change_no_number() -> None:
    plain, expected = trained(evaluation={"every": 10})
    logged, found = trained(evaluation={"every": 10, "log_every": 4})
    assert torch.equal(plain.model.weight, logged.model.weight)
    assert [report.metrics for report in expected.reports] == [report.metrics for report in found.reports]
    assert [report.step for report in found.logs] == [4, 8, 12, 16]  # 20 is an evaluation point
    assert found.logs[0].metrics.keys() == {"batch/loss", "batch/mse", "learning_rate", "gradient_norm"}
    assert found.logs[0].metrics["batch/loss"] == pytest.approx(found.logs[0].metrics["batch/mse"])


def test_the_schedule_of_the_handout() -> None:
    """t/T_w of the peak, then a cosine to a fraction of it, which stays: at 0, T_w, the middle, T_c and after it."""
    schedule = ScheduleConfig(kind="cosine", warmup=10, warmup_from="zero", length=110, minimum_fraction=0.1)
    rates = {step: learning_rate(schedule, 2.0, step) for step in (0, 5, 10, 60, 110, 111)}
    assert rates == pytest.approx({0: 0.0, 5: 1.0, 10: 2.0, 60: 1.1, 110: 0.2, 111: 0.2})


def test_a_cosine_falls_over_a_budget_of_tokens() -> None:
    goal = Goal("tokens", 80, "validation/loss", "min")  # 8 a step
    run = run_of(goal=goal, schedule={"kind": "cosine", "minimum": 0.0})
    train(run, math.inf, NullRecorder())
    assert run.progress.step == 10
    assert run.learning_rate() == 0.0


STUDY = """
study: writers
trainable: tests.unit.test_engine_options:Writer
base: {evaluation: {every: 4, log_every: 3}}
space: {optimizer.learning_rate: [0.01, 0.1]}
seeds: 2
budget: {steps: 16}
metric: {name: validation/loss}
scheduler: {name: asha, grace: 8, reduction_factor: 2}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "writers.yaml"
    path.write_text(STUDY + f"storage: {tmp_path}\n")
    launch(path)
    return tmp_path / "writers"


def test_texts_are_rows_at_rungs_and_at_the_end(written: Path) -> None:
    rows = load(written).query(
        "SELECT step, prompt, gold, reward FROM generations JOIN runs USING (run_id, step) ORDER BY run_id"
    )
    assert set(rows.fetchall()) <= {(step, "bias?", "0.000", 0.0) for step in (8, 16)}
    counts = load(written).query("SELECT step, count(*) FROM generations GROUP BY step ORDER BY step").fetchall()
    assert counts[0] == (8, 4)
    assert counts[-1][0] == 16


def test_the_report_shows_what_the_best_have_written(written: Path) -> None:
    study = load(written)
    runs = newest_texts(study, study.summary())
    assert [(run.seed, run.step) for run in runs] == [(0, 16), (0, 16)]
    assert runs[0].label == study.summary()[0].label
    (text,) = runs[0].texts
    assert (text.prompt, text.gold, text.is_right) == ("bias?", "0.000", False)
    page = write_report(study).read_text()
    assert f"<b>bias?</b>{text.response}" in page
    assert "Dashed level lines are theory: noise of the labels 0.01." in page


def test_rows_without_evaluation_have_no_validation_loss(written: Path) -> None:
    steps = load(written).query(
        'SELECT step, bool_and("validation/loss" IS NULL), bool_and("batch/loss" IS NULL) FROM metrics '
        "GROUP BY step ORDER BY step"
    )
    empty = {step: (validation, batch) for step, validation, batch in steps.fetchall()}
    assert {step for step, (validation, _) in empty.items() if validation} == {3, 6, 9, 15}
    assert {step for step, (_, batch) in empty.items() if not batch} == {3, 6, 9, 15}


def test_a_run_that_was_kept_writes(written: Path) -> None:
    keep_checkpoints(written, "best")
    (best,) = [path for path in (written / "checkpoints").glob("*-s0") if path.is_dir()]
    whose, texts = sample(best.name, str(written), ["a", "b"], Sampling(tokens=2))
    assert whose == f"{best.name} at step 16, study writers"
    wrote = f"SELECT response FROM generations WHERE run_id = '{best.name}' AND step = 16"
    ((response,),) = load(written).query(wrote).fetchall()
    assert texts == [f" {response}" * 2] * 2
    config_id, _ = best.name.split("-")
    others = load(written).query(f"SELECT run_id FROM runs WHERE config_id <> '{config_id}' ORDER BY run_id").fetchall()
    with pytest.raises(RungError, match=f"no checkpoint: kept are those of {best.name}"):
        sample(others[0][0], str(written), ["a"], Sampling())


def test_what_theory_says_is_kept_with_the_study(tmp_path: Path) -> None:
    path = tmp_path / "writers.yaml"
    path.write_text(STUDY)
    study = load_study(path)
    assert study_json(study, make_plan(study))["references"] == {
        "validation/loss": [{"label": "noise of the labels", "value": pytest.approx(0.01)}]
    }


def test_missing_data_is_said_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "writers.yaml"
    path.write_text(STUDY)
    study = load_study(path, ["base.batch_size=99", f"storage={tmp_path}"])
    plan = make_plan(study)
    assert plan.warnings[0] == "there is no ink: buy some"
    with pytest.raises(RungError, match="there is no ink: buy some"):
        run_sweep(study, plan, STUDY, None)  # type: ignore[arg-type]
    assert not (tmp_path / "writers").exists()


def test_a_trainable_that_writes_nothing_says_so() -> None:
    run = run_of()
    with pytest.raises(RungError, match="models of Toy do not write text"):
        run.trainable.complete(run.model, ["a"], Sampling())


def test_several_numbers_of_rungs_leave_texts_once(tmp_path: Path) -> None:
    """A rung that lies between two levels counts where it has been passed."""
    assignment = assignment_in(tmp_path, Goal("tokens", 100, "validation/loss", "min"), rungs=(50.0,))
    replication = start(assignment)
    for level in (20.0, 50.0, 80.0):
        replication.advance(level)
    replication.close()
    (steps,) = zip(*load(tmp_path).query("SELECT step FROM generations").fetchall(), strict=True)
    assert steps == (7,)  # 7 steps of 8 tokens


def test_a_checkpoint_of_another_kind_of_device_is_refused_and_its_weights_can_write(tmp_path: Path) -> None:
    """It is whole: setting it aside as damaged would throw the training away."""
    run = run_of()
    train(run, 5, NullRecorder())

    class OfAGpu(torch.Generator):
        def get_state(self) -> torch.Tensor:
            return torch.zeros(16, dtype=torch.uint8)

    run.generator = OfAGpu()
    checkpoint = save_checkpoint(run, tmp_path)
    with pytest.raises(StorageError, match="written on another kind of device than cpu"):
        resume(run_of, tmp_path)
    assert checkpoint.exists()
    other = run_of()
    load_weights(other, checkpoint)
    assert torch.equal(other.model.weight, run.model.weight)


def test_texts_of_a_rung_are_not_lost_with_a_process_that_dies_before_its_evaluation(tmp_path: Path) -> None:
    assignment = assignment_in(tmp_path, Goal("steps", 16, "validation/loss", "min"), rungs=(8.0,))
    run = Run(Writer(ToyConfig(), 0), assignment.run_id(0), assignment.goal)
    train(run, 7, NullRecorder())
    run.progress.step += 1  # the step is taken and saved, its evaluation is not
    save_checkpoint(run, assignment.checkpoints(0))
    replication = start(assignment)
    replication.advance(8.0)
    replication.close()
    assert load(tmp_path).query("SELECT step FROM generations").fetchall() == [(8,)]


def test_a_diverged_model_is_not_asked_for_texts(tmp_path: Path) -> None:
    assignment = assignment_in(tmp_path, Goal("steps", 16, "validation/loss", "min"), blow_up_for_seed=0)
    replication = start(assignment)
    (row,) = replication.advance(16.0)
    replication.close()
    assert row["status"] == "diverged"
    assert load(tmp_path).query("SELECT * FROM generations").fetchall() == []


def test_float16_and_a_running_mean_of_gradients_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="the first gradient that overflows"):
        ToyConfig.model_validate({"precision": "fp16", "optimizer": {"grokfast": {"kind": "ema"}}})


def assignment_in(directory: Path, goal: Goal, rungs: tuple[float, ...] = (), **values: Any) -> Assignment:
    return Assignment(
        directory=str(directory),
        study="s",
        trainable="tests.unit.test_engine_options:Writer",
        config_id="c0",
        config=ToyConfig.model_validate(values).model_dump(mode="json"),
        seeds=(0,),
        goal=goal,
        rungs=rungs,
    )


def test_whoever_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(run_of(), tmp_path / "open")
    assert len({path.stat().st_mode for path in checkpoint.iterdir()}) == 1
