"""What the training commands share: their command line, and what happens from there to a trained model.

Imports torch only when the settings are known to be right.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rung.errors import RungError
from trainables.arithmetic.model_settings import FILE, ModelSettings
from trainables.arithmetic.training_folder import CONFIG, new_folder, refuse_other, resumable
from trainables.arithmetic.training_settings import CommandSettings, FoundationalSettings, TrainingSettings
from trainables.language.command_line import set_threads
from trainables.language.settings_command import add_flags, given, read_settings, settled

if TYPE_CHECKING:
    from rung.training.run import Run
    from trainables.arithmetic.training_plan import Plan

SettingsT = TypeVar("SettingsT", bound=CommandSettings)

WRITTEN = ("decoder", "vocab_size", "tokenizer_sha256", "adapter")
"""Fields of a model's description that are no flags."""


def _planned(settings: TrainingSettings, model: ModelSettings | None) -> Plan:
    from trainables.arithmetic.training_plan import plan

    return plan(settings, model)


def command(
    kind: type[SettingsT],
    module: str,
    about: str | None,
    arguments: Sequence[str] | None,
    finish: Callable[[SettingsT, Run, Path], None] | None = None,
    planned: Callable[[SettingsT, ModelSettings | None], Plan] = _planned,
) -> int:
    """A training command; returns its exit status.

    Args:
        kind: its settings, which give the flags.
        module: how it is called, `trainables.arithmetic.run_...`.
        about: its help.
        arguments: the command line; None: that of the process.
        finish: what is still to be done when the run is at its end, with the run's folder.
        planned: from settings to what is about to be done.

    Raises:
        RungError: something that the user can mend.
    """
    found = _parser(kind, module, about).parse_args(arguments)
    folder = None if found.resume_checkpoint is None else resumable(found.resume_checkpoint)
    settings, model, notes = _settings(kind, found, folder)
    set_threads()
    from trainables.arithmetic.training_run import run_plan

    made = planned(settings, model)
    folder = folder or new_folder(settings.output_dir, kind.kind)
    for note in notes:
        print(note)
    try:
        run = run_plan(made, folder)
    except KeyboardInterrupt:
        line = shlex.join([sys.executable, "-m", module, "--resume-checkpoint", str(folder)])
        print(f"\ninterrupted; what was logged is in {folder}\ngo on with: {line}")
        return 130
    if finish is not None:
        finish(settings, run, folder)
    print(f"{run.progress.status} ({run.progress.ended_by}) after {run.progress.step:,} steps: {folder}")
    return 0


def _settings(
    kind: type[SettingsT], found: argparse.Namespace, folder: Path | None
) -> tuple[SettingsT, ModelSettings | None, list[str]]:
    """The settings, the model to be made if it is described, and what is to be said about a run that goes on."""
    flags, shape = given(found, kind), given(found, ModelSettings)
    if folder is None:
        settings = settled(kind, flags, found.config)
        is_described = bool(shape) or found.model_config is not None
        return settings, settled(ModelSettings, shape, found.model_config) if is_described else None, []
    before = read_settings(folder / CONFIG)
    if not before.keys() <= kind.model_fields.keys():
        raise RungError(f"{folder} is a run of another command: it goes on with the one that began it")
    settings = settled(kind, flags, found.config, before)
    notes = refuse_other(folder, before, settings.model_dump(mode="json"))
    model = settled(ModelSettings, shape, found.model_config, read_settings(folder / FILE))
    there = ModelSettings.read(folder / FILE)
    refuse_other(folder, there.model_dump(mode="json"), model.model_dump(mode="json"))
    return settings, there, notes


def _parser(kind: type[CommandSettings], module: str, about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, kind)
    parser.add_argument("--config", type=Path, help="JSON file with any of the settings above")
    parser.add_argument("--model-config", type=Path, help="JSON file that describes the model")
    parser.add_argument(
        "--resume-checkpoint", type=Path, help="folder of an interrupted run, or a file in it: that run goes on"
    )
    if issubclass(kind, FoundationalSettings):
        add_flags(parser.add_argument_group("model"), ModelSettings, leave_out=WRITTEN)
    return parser
