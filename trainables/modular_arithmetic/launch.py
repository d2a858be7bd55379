"""What a call of `train_model` asks for, and the `config.json` that says which run a directory holds."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from rung.errors import RungError, StorageError
from rung.provenance import launch_record
from rung.results.files import replace_file
from trainables.language.dotted import changes
from trainables.modular_arithmetic.arguments import Arguments
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.workload import parameter_count


class RunSettings(TypedDict, total=False):
    """What is not part of a configuration; the meaning and the defaults are those of `Arguments`."""

    n_steps: int
    print_step: int
    save_model_step: int
    save_statistic_step: int
    device: str
    exp_id: int
    exp_name: str
    log_dir: str
    seed: int
    verbose: bool


@dataclass(frozen=True)
class Launch:
    """What one call of `train_model` asks for."""

    arguments: Arguments
    """For the settings that are no part of a configuration."""
    config: ModularArithmeticConfig

    @classmethod
    def of(cls, config: Arguments | ModularArithmeticConfig, settings: RunSettings) -> Launch:
        unknown = sorted(settings.keys() - RunSettings.__annotations__.keys())
        if unknown:
            raise RungError(
                f"{', '.join(unknown)}: not a setting of a run; there are "
                f"{', '.join(RunSettings.__annotations__)}. The rest belongs into the configuration"
            )
        base = config if isinstance(config, Arguments) else Arguments()
        arguments = dataclasses.replace(base, **settings)
        _check(arguments)
        return cls(arguments, arguments.to_config() if isinstance(config, Arguments) else config)

    @property
    def directory(self) -> Path:
        arguments = self.arguments
        return Path(arguments.log_dir) / arguments.exp_name / str(arguments.exp_id)

    def path(self, ending: str) -> Path:
        """A file of the run that begins with the experiment's name."""
        return self.directory / f"{self.arguments.exp_name}_{ending}"

    def is_finished_by(self, document: dict[str, Any]) -> bool:
        """Whether the run that `document` describes has nothing left to do."""
        if document["status"] == "running":
            return False
        return bool(document["ended_by"] != "budget" or document["steps"][-1] >= self.arguments.n_steps)


def _check(arguments: Arguments) -> None:
    """Refuses settings outside the configuration that make no sense."""
    for name in ("n_steps", "print_step", "save_model_step", "save_statistic_step"):
        if getattr(arguments, name) < 1:
            raise RungError(f"{name} must be at least 1, got {getattr(arguments, name)}")
    if arguments.seed < 0:
        raise RungError(f"seed must not be negative, got {arguments.seed}")
    if not arguments.exp_name or Path(arguments.exp_name).name != arguments.exp_name:
        raise RungError(f"exp_name {arguments.exp_name!r} must be a plain name: folders belong into log_dir")


def _identity(launch: Launch) -> dict[str, Any]:
    """What makes it this run and no other."""
    return {"config": launch.config.model_dump(mode="json"), "seed": launch.arguments.seed}


def has_this_run(launch: Launch) -> bool:
    """Whether the run lies in its directory already. Raises RungError if another one does."""
    path = launch.directory / "config.json"
    try:
        known = json.loads(path.read_text())
        present = {
            # Through the configuration, so that fields which it has got since then have their defaults.
            "config": ModularArithmeticConfig.model_validate(known["config"]).model_dump(mode="json"),
            "seed": known["seed"],
        }
        n_steps: int = known["n_steps"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    differing = sorted(changes(present, _identity(launch)).items())
    if differing:
        listed = ", ".join(f"{name} {there} -> {wanted}" for name, (there, wanted) in differing)
        raise RungError(
            f"{launch.directory} holds another run ({listed}): "
            "choose another exp_name or exp_id, or delete the directory"
        )
    _check_extension(launch, n_steps)
    return True


def _check_extension(launch: Launch, n_steps: int) -> None:
    wanted, schedule = launch.arguments.n_steps, launch.config.schedule
    if wanted < n_steps:
        raise RungError(
            f"{launch.directory} holds this run with n_steps {n_steps}: it cannot be cut to {wanted}, "
            "choose another exp_name or exp_id"
        )
    if wanted > n_steps and schedule.kind == "cosine" and schedule.length is None:
        raise RungError(
            f"{launch.directory} holds this run with n_steps {n_steps}, over which its learning rate fell: "
            f"it cannot be extended to {wanted}, choose another exp_name or exp_id"
        )


def write_settings(launch: Launch) -> None:
    """Writes `config.json`: the settings, the model's size, and where and when the run was last started."""
    import torch

    arguments = launch.arguments
    content = {
        **_identity(launch),
        **{name: getattr(arguments, name) for name in ("n_steps", "exp_name", "exp_id")},
        "parameters": parameter_count(launch.config),
        "parameters_without_embeddings": parameter_count(launch.config, embeddings=False),
        "launch": launch_record(torch.get_num_threads()),
    }
    path = launch.directory / "config.json"
    try:
        launch.directory.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(content, indent=2).encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
