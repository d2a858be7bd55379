"""The verbs. Light ones (plan, status, results, query, report, schema) import neither ray nor torch.

The options are few and stay few: everything about a study is a key of its file, overridden with `--set a.b=value`.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.errors import RungError

if TYPE_CHECKING:
    from rung.plan import Plan
    from rung.study import Study

app = typer.Typer(
    help="Sweeps of small language-model experiments on Ray: seeds first, results in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyFile = Annotated[Path, typer.Argument(help="The study file (YAML).", metavar="STUDY.yaml")]
StudyName = Annotated[str, typer.Argument(help="A study file, a study's name, or its directory.", metavar="STUDY")]
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
    study_file: StudyFile,
    overrides: Overrides = None,
    configurations: Annotated[bool, typer.Option("--configurations", help="List every configuration.")] = False,
) -> None:
    """Show what a study would run: configurations, seeds, rungs, cost. Runs nothing."""
    from rung.plan_view import render

    _, planned, _ = _load(study_file, overrides)
    _console().print(render(planned, list_configurations=configurations))


@app.command()
def run(study_file: StudyFile, overrides: Overrides = None) -> None:
    """Run a study on Ray; the same command again goes on where it stopped."""
    from rung.results.query import load

    console = _console()
    study, planned, text = _load(study_file, overrides)
    console.print(f"{study.study}: {planned.product}", highlight=False)
    console.print(f"results in {study.directory}", highlight=False, soft_wrap=True)
    try:
        from rung.tuning.sweep import run_sweep

        outcome = run_sweep(study, planned, text, console, debug=_debug)
    except KeyboardInterrupt:
        console.print(
            f"\ninterrupted. Everything reported so far is in {study.directory}\ngo on with: {_command_line()}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if outcome.was_complete:
        console.print("nothing left to do: every configuration has come to its end", highlight=False)
    results = load(outcome.directory)
    _print_results(results)
    if not (outcome.was_complete and (outcome.directory / "report" / "report.html").exists()):
        _write_report(results)
    if outcome.failed_runs:
        console.print(
            f"[red]{outcome.failed_runs} runs failed[/red]; see `rung status {study.study}`. "
            "The same command tries them again.",
            highlight=False,
        )
        raise typer.Exit(1)


@app.command()
def status(
    study: StudyName,
    decisions: Annotated[bool, typer.Option("--decisions", help="List every decision and its reason.")] = False,
) -> None:
    """Show how far a study has come, from its tables; works while it runs."""
    from rung.results.query import load
    from rung.results.render import render_status

    _console().print(render_status(load(study), decisions=decisions))


@app.command()
def results(
    study: StudyName,
    output: Annotated[str, typer.Option("--format", help="table, csv, markdown, latex or json.")] = "table",
) -> None:
    """Compare the configurations of a study: n, mean, interval, single seeds."""
    from rung.results.export import export
    from rung.results.query import load

    loaded = load(study)
    if output == "table":
        _print_results(loaded)
    else:
        typer.echo(export(loaded.summary(), output))


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
    """Write figures (PNG, SVG) and one HTML page into the study's directory."""
    from rung.results.query import load

    _write_report(load(study))


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


def _load(study_file: Path, overrides: list[str] | None) -> tuple[Study, Plan, str]:
    from rung.plan import make_plan
    from rung.study import load_study

    study = load_study(study_file, overrides or ())
    return study, make_plan(study), study_file.read_text()


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


def _command_line() -> str:
    import shlex

    return shlex.join(["rung", *sys.argv[1:]])
