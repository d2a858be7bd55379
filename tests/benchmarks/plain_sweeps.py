"""What users write instead of a sweep with rung: the `for` loop over configurations and seeds, and plain Ray Tune.

Competent and ordinary, for modular arithmetic: evaluation every few steps, one CSV row for each. `step: rung` trains
rung's own model and data with a loop written out here, so that only the way of sweeping differs; `step: plain` trains
with the plain loop of `plain_models.py`. Every form is a command, given a JSON description of the study:

    python -m tests.benchmarks.plain_sweeps FORM '{"step": "rung", "seeds": 2, "steps": 100, ...}'
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

Report = Callable[[dict[str, float]], None]
Study = Mapping[str, Any]
"""step, weight_decays, seeds (a number), steps, every (steps between evaluations), model (dotted), directory."""


def main() -> None:
    form, study = sys.argv[1], json.loads(sys.argv[2])
    {"loop": loop, "processes": processes, "tune": tune_trials, "tune_reused": partial(tune_trials, reuse=True)}[form](
        study
    )


def loop(study: Study) -> None:
    """One process, torch's own number of threads."""
    for weight_decay, seed in product(study["weight_decays"], range(study["seeds"])):
        train_to_csv(study, weight_decay, seed)


def processes(study: Study) -> None:
    """As many processes as cores, of one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, which happens in the processes
    runs = [(study, *run) for run in product(study["weight_decays"], range(study["seeds"]))]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(train_to_csv, runs, chunksize=1)


def tune_trials(study: Study, reuse: bool = False) -> None:
    """Ray Tune, one trial per configuration and seed, one CPU each."""
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        train(study, config["weight_decay"], config["seed"], tune.report)

    ray.init(include_dashboard=False)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={
            "weight_decay": tune.grid_search(study["weight_decays"]),
            "seed": tune.grid_search(list(range(study["seeds"]))),
        },
        tune_config=tune.TuneConfig(metric="validation/accuracy", mode="max", reuse_actors=reuse),
        run_config=tune.RunConfig(name="tune", storage_path=study["directory"], verbose=1),
    )
    results = tuner.fit()
    results.get_dataframe().to_csv(Path(study["directory"]) / "results.csv")
    print(results.get_best_result().config)


def train_to_csv(study: Study, weight_decay: float, seed: int) -> None:
    """One run, whose evaluations become rows of a file."""
    path = Path(study["directory"]) / f"{weight_decay}-{seed}.csv"
    with path.open("w", newline="") as file:
        writer: list[csv.DictWriter[str]] = []

        def report(row: dict[str, float]) -> None:
            if not writer:
                writer.append(csv.DictWriter(file, list(row)))
                writer[0].writeheader()
            writer[0].writerow(row)
            file.flush()

        train(study, weight_decay, seed, report)


def train(study: Study, weight_decay: float, seed: int, report: Report) -> None:
    """One run, evaluated before the first step and after every `every` of them."""
    step, evaluate = (plain_run if study["step"] == "plain" else rung_run)(study, weight_decay, seed)
    for number in range(study["steps"] + 1):
        if number % study["every"] == 0:
            report({"step": number, **evaluate()})
        if number < study["steps"]:
            step()


def rung_run(
    study: Study, weight_decay: float, seed: int
) -> tuple[Callable[[], None], Callable[[], Mapping[str, float]]]:
    """Step and evaluation of rung's model on rung's data, in a loop of one's own."""
    import torch

    from rung.training.optimizers import build_optimizer
    from trainables.modular_arithmetic.trainable import ModularArithmetic

    config = configuration(study, weight_decay)
    trainable = ModularArithmetic(config, seed)
    model = trainable.model(torch.Generator().manual_seed(seed)).train()
    optimizer, batches = build_optimizer(config.optimizer, model), trainable.batches()
    numbers = iter(range(study["steps"]))

    def step() -> None:
        loss = trainable.loss(model, batches.at(next(numbers), model)).value
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()

    def evaluate() -> Mapping[str, float]:
        model.eval()
        with torch.no_grad():
            metrics = trainable.evaluate(model)
        model.train()
        return metrics

    return step, evaluate


def plain_run(
    study: Study, weight_decay: float, seed: int
) -> tuple[Callable[[], object], Callable[[], Mapping[str, float]]]:
    """Step and evaluation as users write them."""
    import torch
    from torch.nn import functional as F

    from tests.benchmarks.plain_models import plain_training
    from trainables.modular_arithmetic.data import split, tokenize

    config = configuration(study, weight_decay)
    model, step = plain_training(config, seed)
    splits = {
        name: torch.from_numpy(tokenize(config, items))
        for name, items in zip(("train", "validation"), split(config, 2, seed), strict=True)
    }

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        metrics = {}
        for name, tokens in splits.items():
            logits, wanted = model(tokens[:, :-1])[:, -2:], tokens[:, -2:]
            metrics[f"{name}/loss"] = F.cross_entropy(logits.flatten(0, 1), wanted.flatten()).item()
            metrics[f"{name}/accuracy"] = (logits.argmax(-1) == wanted).all(-1).float().mean().item()
        return metrics

    return step, evaluate


def configuration(study: Study, weight_decay: float) -> Any:
    """The configuration of a run."""
    from trainables.modular_arithmetic.config import ModularArithmeticConfig

    values = {**study["base"], "optimizer": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": weight_decay}}
    return ModularArithmeticConfig.model_validate(values)


def rung_study(study: Study) -> dict[str, Any]:
    """The same as a study file of rung."""
    return {
        "study": "sweep",
        "trainable": "modular_arithmetic",
        "base": {**study["base"], "evaluation": {"first": 0, "every": study["every"]}},
        "space": {"optimizer.weight_decay": list(study["weight_decays"])},
        "seeds": study["seeds"],
        "budget": {"steps": study["steps"]},
        "metric": {"name": "validation/accuracy", "mode": "max"},
        "storage": study["directory"],
    }


if __name__ == "__main__":
    main()
