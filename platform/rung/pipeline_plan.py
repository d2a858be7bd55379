"""What a pipeline would run, stage by stage, as far as that is known before it runs.

What a stage starts from is known when the stage before is complete. Until then its plan assumes the first configuration
of that stage, so that mistakes, cost and missing data of all stages are known before the first one starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rung.errors import RungError
from rung.extension import begun_study, extended
from rung.pipeline import Pipeline, Stage
from rung.plan import Plan, make_plan
from rung.results.confirmation import read_confirmation
from rung.results.query import load
from rung.start import assumed, has_changed_inputs, named_by_content, resolved
from rung.study import Study


@dataclass(frozen=True)
class StagePlan:
    """What a stage would run."""

    stage: Stage
    plan: Plan
    is_assumed: bool
    """Whether the stage that it starts from must come to its end before this is known for sure."""
    is_complete: bool
    """Whether there is nothing left to do."""
    has_begun: bool
    additions: tuple[str, ...]
    """What is new about a study that has begun."""

    @property
    def study(self) -> Study:
        """The study as it is run, named as its folder."""
        return self.plan.study

    @property
    def is_renamed(self) -> bool:
        """Whether an input has changed, so that it runs in another folder than that of its name."""
        return self.study.study != self.stage.name


def plan_stages(pipeline: Pipeline) -> list[StagePlan]:
    """The plan of every stage.

    Raises:
        RungError: a stage cannot be run: its trainable refuses it, what it starts from is outside of the pipeline and
            not there, or a study that it cannot go on with is in its folder.
    """
    plans: dict[str, StagePlan] = {}
    for stage in pipeline.stages:
        plans[stage.name] = plan_stage(stage, plans)
    return list(plans.values())


def plan_stage(stage: Stage, before: Mapping[str, StagePlan]) -> StagePlan:
    """The plan of one stage.

    Args:
        stage: the stage.
        before: the plans of those before it, by name.

    Raises:
        RungError: as for `plan_stages`.
    """
    source = before.get(stage.study.start.study) if stage.study.start else None
    try:
        if source is not None and not source.is_complete:
            plan = make_plan(assumed(stage.study, source.plan))
            return StagePlan(stage, plan, is_assumed=True, is_complete=False, has_begun=False, additions=())
        return _planned(stage, _study(stage, source))
    except RungError as error:
        raise RungError(f"stage {stage.name}: {error}") from error


def _planned(stage: Stage, study: Study) -> StagePlan:
    plan, begun = make_plan(study), begun_study(study.directory)
    if begun is None:
        return StagePlan(stage, plan, is_assumed=False, is_complete=False, has_begun=False, additions=())
    plan, additions = extended(plan, begun)
    is_complete = not additions and _is_over(plan, begun.directory)
    return StagePlan(stage, plan, False, is_complete, has_begun=True, additions=tuple(additions))


def _study(stage: Stage, source: StagePlan | None) -> Study:
    """The study of a stage with what it starts from filled in, under the name of the folder that it runs in.

    That is the folder of its name, unless the study there was of another trainable, base or start; then it is one whose
    name ends in a key made from these.
    """
    study = stage.study
    if study.start is not None and source is not None:
        start = study.start.model_copy(update={"study": source.study.study})
        study = study.model_copy(update={"start": start})
    study = resolved(study)
    return named_by_content(study) if has_changed_inputs(study) else study


def check_data(plans: Iterable[StagePlan]) -> None:
    """Asks for what the runs of all stages need, before the first one is started.

    Raises:
        RungError: something is not there; says what, and the command that makes it.
    """
    plans = [each for each in plans if not each.is_complete]
    missing = dict.fromkeys(sentence for each in plans for sentence in each.plan.missing)
    if missing:
        raise RungError("; ".join(missing))


def _is_over(plan: Plan, directory: Path) -> bool:
    """Whether every planned run has come to an end and none has failed."""
    results = load(directory)
    search = results.summary()
    confirmation = read_confirmation(results.study, search, results.summary("confirm"))
    ended = {entry.config_id for entry in search if entry.has_ended and (entry.stopped or not entry.failed)}
    planned = {each.config_id for each in plan.configurations}
    confirmed = plan.study.confirm is None or (confirmation is not None and confirmation.is_over)
    failed = confirmation is not None and confirmation.failed > 0
    return planned <= ended and len(ended) >= plan.count and confirmed and not failed
