"""The verbs. Light ones (plan, status, results, query, report, schema) import neither ray nor torch.

The options are few and stay few: everything about a study is a key of its file, overridden with `--set a.b=value`.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.errors import RungError

if TYPE_CHECKING:
    from rich.console import Console

    from rung.plan import Plan
    from rung.results.pipeline import PipelineResults
    from rung.study import Study
    from rung.tuning.sweep import Outcome

app = typer.Typer(
    help="Sweeps of small language-model experiments on Ray: seeds first, results in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
wandb_app = typer.Typer(help="Weights & Biases: a view of a study's tables.", no_args_is_help=True)
app.add_typer(wandb_app, name="wandb")

StudyFile = Annotated[Path, typer.Argument(help="The study file (YAML).", metavar="STUDY.yaml")]
FileToRun = Annotated[Path, typer.Argument(help="The study file or pipeline file (YAML).", metavar="STUDY.yaml")]
StudyName = Annotated[
    str, typer.Argument(help="A study or a pipeline: its file, its name, or its directory.", metavar="STUDY")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the study file: seeds=4, base.modulus=97.", metavar="KEY=VALUE"),
]

_debug = False


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show Python tracebacks and Ray's own messages.")] = False,
) -> None:
    global _debug
    _debug = _debug or debug


@app.command()
def plan(
    study_file: FileToRun,
    overrides: Overrides = None,
    configurations: Annotated[bool, typer.Option("--configurations", help="List every configuration.")] = False,
) -> None:
    """Show what a study or a pipeline would run: configurations, seeds, rungs, cost. Runs nothing."""
    from rung.extension import begun_study, extended
    from rung.pipeline import is_pipeline
    from rung.plan_view import render, render_begun

    if is_pipeline(study_file):
        return _plan_pipeline(study_file, overrides, configurations)
    study, planned, unknown = _load_to_plan(study_file, overrides)
    begun, additions, objection = begun_study(study.directory), list[str](), ""
    if begun is not None:
        try:
            planned, additions = extended(planned, begun)
        except RungError as error:
            objection = str(error)
    console = _console()
    console.print(render(planned, list_configurations=configurations))
    if unknown:
        console.print(f"\n[yellow]not known yet:[/yellow] {unknown}", highlight=False, soft_wrap=True)
    if begun is not None:
        console.print(render_begun(begun, additions, objection), soft_wrap=True)


@app.command()
def run(study_file: FileToRun, overrides: Overrides = None) -> None:
    """Run a study or a pipeline on Ray; the same command again goes on where it stopped."""
    from rung.pipeline import is_pipeline

    if is_pipeline(study_file):
        return _run_pipeline(study_file, overrides)
    console = _console()
    study, planned, text = _load(study_file, overrides)
    console.print(f"{study.study}: {planned.product}", highlight=False)
    console.print(f"results in {study.directory}", highlight=False, soft_wrap=True)
    if planned.warnings and not planned.missing:  # what is missing comes as an error
        from rung.plan_view import warnings_text

        console.print(warnings_text(planned), soft_wrap=True)
    try:
        from rung.tuning.sweep import run_sweep

        outcome = run_sweep(study, planned, text, console, debug=_debug)
    except KeyboardInterrupt:
        raise _interrupted(study.directory, console) from None
    _show_outcome(outcome, console)
    if outcome.failed_runs:
        raise typer.Exit(1)


@app.command()
def status(
    study: StudyName,
    decisions: Annotated[bool, typer.Option("--decisions", help="List every decision and its reason.")] = False,
) -> None:
    """Show how far a study or a pipeline has come, from its tables; works while it runs."""
    from rung.results.pipeline import find_pipeline
    from rung.results.query import load
    from rung.results.render import render_status

    console = _console()
    pipeline = find_pipeline(study)
    if pipeline is not None:
        from rung.pipeline_view import render_pipeline_status

        console.print(render_pipeline_status(pipeline, decisions=decisions, width=console.width))
        return
    console.print(render_status(load(study), decisions=decisions, width=console.width))


@app.command()
def results(
    study: StudyName,
    output: Annotated[str, typer.Option("--format", help="table, csv, markdown, latex or json.")] = "table",
) -> None:
    """Compare the configurations of a study, or the stages of a pipeline: n, mean, interval, single seeds."""
    from rung.results.confirmation import result_rows
    from rung.results.export import export
    from rung.results.pipeline import find_pipeline
    from rung.results.query import load

    pipeline = find_pipeline(study)
    if pipeline is not None:
        return _pipeline_results(pipeline, output)
    loaded = load(study)
    if output == "table":
        _print_results(loaded)
    else:
        typer.echo(export(result_rows(loaded.study, loaded.summary(), loaded.summary("confirm")), output))


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Configurations of --study (id, its beginning, or label), or STUDY:ID each; or one study, or two.",
            metavar="NAME...",
        ),
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="The study that the configurations are of.")] = None,
    output: Annotated[str, typer.Option("--format", help="table, csv, markdown, latex or json.")] = "table",
) -> None:
    """Tell whether one configuration is better than others, paired by seed, and how many seeds it would take."""
    from rung.results.compare import compare_named
    from rung.results.export import export

    families = compare_named(names or (), study)
    if output == "table":
        from rung.results.render_compare import render_families

        console = _console()
        console.print(render_families(families, console.width))
    else:
        typer.echo(export([comparison for family in families for comparison in family.comparisons], output))


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over configurations, runs, metrics, decisions, events.")],
    studies: Annotated[
        list[str] | None, typer.Option("--study", help="Only this study (repeatable); otherwise all of them.")
    ] = None,
    output: Annotated[str, typer.Option("--format", help="table, csv, markdown, latex or json.")] = "table",
) -> None:
    """Ask the tables anything, in DuckDB's SQL, while a study runs or afterwards."""
    from rung.results.export import export
    from rung.results.query import query_studies
    from rung.results.render import render_records
    from rung.results.views import dicts

    rows = dicts(query_studies(sql, *(studies or ())))
    if output == "table":
        console = _console()
        console.print(render_records(rows, console.width), soft_wrap=True)
    else:
        typer.echo(export(rows, output))


@app.command()
def report(study: StudyName) -> None:
    """Write figures (PNG, SVG) and one HTML page into the study's, or the pipeline's, directory."""
    from rung.results.pipeline import find_pipeline
    from rung.results.query import load

    pipeline = find_pipeline(study)
    if pipeline is not None:
        for stage in pipeline.stages():
            if stage.study is not None:
                _write_report(pipeline.study_of(stage))
        return _write_pipeline_report(pipeline)
    return _write_report(load(study))


@app.command()
def clean(
    studies: Annotated[
        list[str], typer.Argument(help="Study files, studies' names, or their directories.", metavar="STUDY...")
    ],
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Checkpoints that stay, for checkpoints.keep: none, best, 3, completed, all."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; otherwise only show what could go.")] = False,
) -> None:
    """Show what of a study could be deleted without losing a result; with --yes, delete it."""
    import shlex

    from rung.results.query import load
    from rung.results.retention import policy_of
    from rung.tuning.clean_view import render_removals
    from rung.tuning.cleaning import clean as delete
    from rung.tuning.cleaning import find_removals, read_keep

    chosen = None if keep is None else read_keep(keep)
    for name in studies:
        loaded = load(name)
        policy = policy_of(loaded.study) if chosen is None else chosen
        if not yes and loaded.live():
            raise RungError(f"{name} is being run: nothing of it can be cleaned before that ends")
        removals = delete(loaded, policy) if yes else find_removals(loaded, policy)
        command = shlex.join(["rung", "clean", name, *(["--keep", keep] if keep else []), "--yes"])
        _console().print(render_removals(loaded, removals, policy, command=None if yes else command))


@app.command()
def train(
    study_file: StudyFile,
    overrides: Overrides = None,
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", help="Id of the one to train; otherwise the first.", metavar="ID"),
    ] = None,
) -> None:
    """Train one configuration in this process, without Ray: breakpoints work."""
    from rung.tuning.solo import train_solo

    study, planned, text = _load(study_file, overrides)
    directory = train_solo(study, planned, text, configuration, _console())
    _console().print(f"rows in {directory}", highlight=False, soft_wrap=True)


@app.command()
def replay(
    run_id: Annotated[str, typer.Argument(help="The run's id, or its beginning.", metavar="RUN_ID")],
    study: Annotated[
        str | None, typer.Option("--study", help="The study it belongs to; otherwise all are searched.")
    ] = None,
    present: Annotated[
        bool, typer.Option("--present", help="With the code as it is now, not the copy that its launch has kept.")
    ] = False,
) -> None:
    """Train a recorded run again, without Ray, and compare every report: identical, or where it first differs."""
    from rung.tuning.replay import replay

    report = replay(run_id, study, typer.echo, present=present)
    if isinstance(report, int):
        raise typer.Exit(report)
    typer.echo(report.render())
    if not report.is_identical:
        raise typer.Exit(1)


@app.command()
def sample(
    run_id: Annotated[str, typer.Argument(help="The run's id, or its beginning.", metavar="RUN_ID")],
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="What the model goes on from (repeatable); else a line's end.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Texts for each prompt.", min=1)] = 1,
    tokens: Annotated[int, typer.Option("--tokens", help="Most new tokens.", min=1)] = 200,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the likeliest.", min=0.0)] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Only so many of the likeliest tokens.", min=1)] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Only the likeliest of this probability.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.", min=0)] = 0,
    study: Annotated[
        str | None, typer.Option("--study", help="The study it belongs to; otherwise all are searched.")
    ] = None,
) -> None:
    """Let the model of a recorded run write, from the checkpoint that was kept of it."""
    from rung.trainable import Sampling
    from rung.tuning.sample import sample

    asked = [prompt for prompt in prompts or ["\n"] for _ in range(samples)]
    if top_p is not None and not 0 < top_p <= 1:
        raise RungError(f"--top-p is a probability above 0 and at most 1, got {top_p:g}")
    whose, texts = sample(run_id, study, asked, Sampling(tokens, temperature, top_k, top_p, seed))
    console = _console()
    console.print(whose, highlight=False, style="dim")
    for prompt, text in zip(asked, texts, strict=True):
        console.rule(style="dim")
        typer.echo(prompt.lstrip("\n") + text)


@app.command()
def solve(
    problem: Annotated[
        str | None, typer.Argument(help="What is to be solved; otherwise it is asked for, again and again.")
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="Whose model: a run's id, or its beginning; else the best.", metavar="RUN_ID"),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Its study or pipeline; otherwise the last one whose models solve.")
    ] = None,
) -> None:
    """Let the model of a recorded run solve a problem, and say what is wrong in its solution."""
    from rung.tuning.solve import interact, open_solver

    solver = open_solver(run_id, study)
    _console().print(solver.whose, highlight=False, style="dim")
    if problem is not None:
        typer.echo(solver(problem))
    else:
        interact(solver, typer.echo)


@wandb_app.command("sync")
def wandb_sync(
    studies: Annotated[
        list[str], typer.Argument(help="Studies or pipelines: files, names, or directories.", metavar="STUDY...")
    ],
) -> None:
    """Send whole studies to W&B from their tables, with a key (`wandb login`); without one, write files for it."""
    from rung.wandb.sync import sync

    for name in studies:
        for line in sync(name):
            _console().print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def schema(
    trainable: Annotated[str | None, typer.Argument(help="Complete base and space for this trainable.")] = None,
) -> None:
    """Print the JSON Schema of study files, for editors."""
    import json

    from rung.study_schema import json_schema

    typer.echo(json.dumps(json_schema(trainable), indent=2))


def main() -> None:
    """Entry point: what a user can act on is one message, without a traceback unless `--debug` is given."""
    global _debug
    if "--debug" in sys.argv:  # at any place, not only before the verb
        sys.argv.remove("--debug")
        _debug = True
    warnings.showwarning = _show_warning
    try:
        app()
    except RungError as error:
        if _debug:
            traceback.print_exc()
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(2)
    except Exception as error:
        if _debug:
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        typer.secho(
            f"error: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno}). "
            f"For the traceback: rung --debug {' '.join(sys.argv[1:])}",
            err=True,
            fg="red",
        )
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A damaged part is a line for the user; any other warning is a bug's and looks as Python makes it look."""
    from rung.results.views import UnreadablePartWarning

    if issubclass(category, UnreadablePartWarning):
        typer.secho(f"warning: {message}", err=True, fg="yellow")
    else:
        typer.echo(warnings.formatwarning(message, category, *where[:2]), err=True, nl=False)


def _load(study_file: Path, overrides: list[str] | None) -> tuple[Study, Plan, str]:
    from rung.plan import make_plan
    from rung.start import stage_study
    from rung.study import load_study

    study = stage_study(load_study(study_file, overrides or ()))
    return study, make_plan(study), study_file.read_text()


def _load_to_plan(study_file: Path, overrides: list[str] | None) -> tuple[Study, Plan, str]:
    """As `_load`; what a stage starts from may be unknown yet, which is said in the last item."""
    from rung.plan import make_plan
    from rung.start import stage_study
    from rung.study import load_study

    study, unknown = load_study(study_file, overrides or ()), ""
    try:
        study = stage_study(study)
    except RungError as error:
        if study.start is None:
            raise
        unknown = f"{error}. Until then ids and what is taken over are those of a study that starts from nothing"
    return study, make_plan(study), unknown


def _plan_pipeline(file: Path, overrides: list[str] | None, configurations: bool) -> None:
    from rung.pipeline import load_pipeline
    from rung.pipeline_plan import plan_stages
    from rung.pipeline_view import render_plans

    pipeline, console = load_pipeline(file, overrides or ()), _console()
    plans = plan_stages(pipeline)
    console.print(render_plans(pipeline, plans, list_configurations=configurations, width=console.width))


def _run_pipeline(file: Path, overrides: list[str] | None) -> None:
    from rung.pipeline import load_pipeline
    from rung.pipeline_view import render_pipeline
    from rung.results.pipeline import PipelineResults

    pipeline, console = load_pipeline(file, overrides or ()), _console()
    console.print(f"{pipeline.name}: {', '.join(stage.name for stage in pipeline.stages)}", highlight=False)
    try:
        from rung.tuning.pipeline import run_pipeline

        outcome = run_pipeline(pipeline, console, lambda ended: _show_outcome(ended, console), debug=_debug)
    except KeyboardInterrupt:
        raise _interrupted(pipeline.directory, console) from None
    results = PipelineResults(outcome.directory)
    console.rule(style="dim")
    console.print(render_pipeline(results, console.width))
    _write_pipeline_report(results)
    if outcome.failed_stage is not None:
        raise typer.Exit(1)


def _pipeline_results(pipeline: PipelineResults, output: str) -> None:
    from rung.pipeline_view import render_pipeline_results
    from rung.results.export import export

    console = _console()
    if output == "table":
        console.print(render_pipeline_results(pipeline, console.width))
    else:
        typer.echo(export(pipeline.stages(), output))


def _write_pipeline_report(pipeline: PipelineResults) -> None:
    from rung.results.pipeline_report import write_pipeline_report

    _console().print(f"report: {write_pipeline_report(pipeline)}", highlight=False, soft_wrap=True)


def _interrupted(directory: Path, console: Console) -> typer.Exit:
    """Says how to go on; what the command then ends with."""
    console.print(
        f"\ninterrupted. Everything reported so far is in {directory}\ngo on with: {_command_line()}",
        highlight=False,
        soft_wrap=True,
    )
    return typer.Exit(130)


def _show_outcome(outcome: Outcome, console: Console) -> None:
    """What a sweep has left: table, report, and what is to be done about failed runs."""
    from rung.results.query import load

    if outcome.was_complete:
        console.print("nothing left to do: every configuration has come to its end", highlight=False)
    results = load(outcome.directory)
    _print_results(results)
    if not (outcome.was_complete and (outcome.directory / "report" / "report.html").exists()):
        _write_report(results)
    _suggest_sample(results, console)
    if outcome.failed_runs:
        console.print(
            f"[red]{outcome.failed_runs} runs failed[/red]; see `rung status {outcome.directory.name}`. "
            "The same command tries them again.",
            highlight=False,
        )


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print_results(loaded: Any) -> None:
    from rung.results.render import render_summary

    console = _console()
    console.print(render_summary(loaded, console.width))


def _write_report(loaded: Any) -> None:
    from rung.results.report import write_report

    page = write_report(loaded)
    _console().print(f"report: {page}", highlight=False, soft_wrap=True)


def _suggest_sample(loaded: Any, console: Any) -> None:
    """The command with which a model that was kept solves problems or writes, if the study's models do at all."""
    from rung.results.written import sampled_run
    from rung.tuning.solve import solves

    run_id = sampled_run(loaded)
    if run_id is not None and solves(str(loaded.study["trainable"])):
        console.print(f"what the best solves: rung solve --run {run_id}", highlight=False, soft_wrap=True)
    elif run_id is not None:
        console.print(f"what the best writes: rung sample {run_id}", highlight=False, soft_wrap=True)


def _command_line() -> str:
    import shlex

    return shlex.join(["rung", *sys.argv[1:]])
