"""The tables of a study: their columns, types and meaning, and which of two rows about one thing counts.

This module is the one source of truth. `store.py` writes by it, `query.py` reads by it, and the tables in
`docs/results.md` are printed from it:

    python -m rung.results.schema

It imports nothing heavy; Arrow types are built in `store.py`, DuckDB types in `query.py`.

A table may carry extra columns beside its reserved ones: `metrics` one double per metric, `configurations` one
`config.<dotted path>` column per value of the complete resolved configuration.
"""

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
"""Raised when a reader of the old version would misread a new file; stored in every part as `rung.schema`."""

SCHEMA_KEY = "rung.schema"
"""Key of the schema version in a part's Parquet metadata."""

ATTEMPTS_KEY = "rung.attempts"
"""Key in a compacted part's Parquet metadata: JSON of the highest attempt of every writer it has absorbed."""

CONFIG_PREFIX = "config."
"""What the columns of a resolved configuration begin with."""

ColumnType = Literal["bool", "int64", "double", "string", "timestamp"]
Extra = Literal["none", "metrics", "config"]
Phase = Literal["search", "confirm"]


@dataclass(frozen=True, slots=True)
class Column:
    """One reserved column. A row without a value for it is refused unless the column is nullable."""

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its reserved columns in order, and how its rows are told apart.

    Rows of one study that agree in `key` are about the same thing; the one that comes first in the order `keep` (SQL
    `ORDER BY` terms) is seen, the others are not. An empty key means that only whole rows can be duplicates.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    keep: tuple[str, ...]
    extra: Extra = "none"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def rule(self) -> str:
        """The de-duplication rule in words."""
        if not self.key:
            return "Rows that are equal in every column are seen once."
        ends = {"ASC": "lowest", "DESC": "highest"}
        order = ", then ".join(f"the {ends[end]} `{name}`" for name, end in map(str.split, self.keep))
        return f"Of rows with the same {_code(self.key)} one is seen: the one with {order}."


STUDY = Column("study", "string", "name of the study")
CONFIG_ID = Column("config_id", "string", 'the configuration: "c" and 12 hex digits, a hash of its values')
RUN_ID = Column("run_id", "string", "the run: `<config_id>-s<seed>`, in phase confirm with `-confirm` behind it")
SEED = Column("seed", "int64", "random seed of the run")
PHASE = Column("phase", "string", "`search` (choosing) or `confirm` (fresh seeds, after choosing)")
ATTEMPT = Column("attempt", "int64", "how often its writer had been started when it wrote the row, from 1")
LAUNCH = Column(
    "launch",
    "int64",
    "the launch that wrote the row, `number` in provenance.json: its command and code; null in older rows",
    nullable=True,
)
STEP = Column("step", "int64", "optimizer steps done")
EPOCH = Column("epoch", "double", "passes over the training set done; null for an endless stream", nullable=True)
TOKENS = Column("tokens", "int64", "training tokens consumed")
WALL_SECONDS = Column("wall_seconds", "double", "training clock of the run in seconds, evaluation included")
REPORTED_AT = Column("reported_at", "timestamp", "when the row was made")

CONFIGURATIONS = Table(
    name="configurations",
    doc="One row per configuration; its complete resolved values follow in typed columns.",
    columns=(
        STUDY,
        Column("trainable", "string", "what is trained, as the study file names it"),
        CONFIG_ID,
        Column("label", "string", 'short text of the swept values, such as "gpt, weight_decay=0.5"'),
        Column("plan_index", "int64", "position in the plan, from 0"),
        Column("sample", "int64", "which draw of the random dimensions it belongs to, from 0"),
        LAUNCH,
        Column("created_at", "timestamp", "when the driver planned it"),
        Column("config_json", "string", "the complete resolved configuration as JSON"),
    ),
    key=("config_id",),
    # A clock may go backwards, launches do not.
    keep=("launch DESC", "created_at DESC"),
    extra="config",
)

RUNS = Table(
    name="runs",
    doc="One row per run as it stands. The driver appends a row whenever a run changes; the newest is seen.",
    columns=(
        STUDY,
        CONFIG_ID,
        RUN_ID,
        SEED,
        PHASE,
        Column("status", "string", "`running`, `completed`, `stopped` (by the scheduler), `diverged`, `failed`"),
        Column(
            "ended_by",
            "string",
            "why it ended: `budget`, `target`, `early_stopping`, `wall_clock`, `scheduler`, `divergence` "
            "or `error`; null while it runs",
            nullable=True,
        ),
        Column("error", "string", "text of the error of a failed run", nullable=True),
        ATTEMPT,
        Column("revision", "int64", "counts the changes of the run's row within an attempt"),
        STEP,
        EPOCH,
        TOKENS,
        WALL_SECONDS,
        Column("value", "double", "the study's metric by its `select` rule", nullable=True),
        Column("best", "double", "best value of the study's metric so far", nullable=True),
        Column("best_step", "int64", "first step that reached `best`", nullable=True),
        Column("diverged_step", "int64", "step at which a diverged run was found to be so", nullable=True),
        Column("parameters", "int64", "trainable parameters of the model; null if it never came to be", nullable=True),
        Column(
            "replication",
            "string",
            "`serial`, `packed` or `spread`: how the configuration's runs were trained",
        ),
        Column(
            "workers",
            "int64",
            "processes that trained the run together; null as below, and in older rows",
            nullable=True,
        ),
        Column("threads", "int64", "CPU threads of each process; null if it was lost before a report", nullable=True),
        Column("device", "string", "device trained on, such as `cpu` or `cuda:0`; null as above", nullable=True),
        Column("host", "string", "name of the machine; null as above", nullable=True),
        LAUNCH,
        Column("updated_at", "timestamp", "when the row was made"),
    ),
    key=("run_id",),
    keep=("attempt DESC", "revision DESC"),
)

METRICS = Table(
    name="metrics",
    doc=(
        "One row per run and report, with one double column per metric, such as `validation/accuracy`. "
        "A metric that is missing, infinite or not a number is null; that a run diverged stands in `runs`."
    ),
    columns=(STUDY, CONFIG_ID, RUN_ID, SEED, PHASE, ATTEMPT, LAUNCH, STEP, EPOCH, TOKENS, WALL_SECONDS, REPORTED_AT),
    key=("run_id", "step"),
    keep=("attempt DESC", "reported_at DESC"),
    extra="metrics",
)

DECISIONS = Table(
    name="decisions",
    doc="One row per decision of the scheduler about a configuration at a rung.",
    columns=(
        STUDY,
        CONFIG_ID,
        PHASE,
        Column("scheduler", "string", "name of the scheduler that decided"),
        Column("bracket", "int64", "bracket of the scheduler, from 0"),
        Column("level", "int64", "the rung, in units of the study's budget"),
        Column(
            "value",
            "double",
            "the configuration's metric over its seeds; null if there is none",
            nullable=True,
        ),
        Column("threshold", "double", "what the value was compared with; null if with nothing", nullable=True),
        Column(
            "margin",
            "double",
            "half width of the value's interval over seeds; null without `scheduler.confidence` or with one seed",
            nullable=True,
        ),
        Column("rank", "int64", "place of the configuration among those compared, from 1"),
        Column("compared", "int64", "configurations compared, itself included"),
        Column("seeds", "int64", "runs behind the value"),
        Column("decision", "string", "`continue` or `stop`"),
        Column("reason", "string", "the decision in one sentence"),
        Column("order", "int64", "order in which the decisions fell, from 0"),
        ATTEMPT,
        Column("decided_at", "timestamp", "when it was decided"),
    ),
    key=("config_id", "bracket", "level"),
    keep=("order ASC", "attempt ASC"),
)

GENERATIONS = Table(
    name="generations",
    doc="What a model wrote during an evaluation or a rollout.",
    columns=(
        STUDY,
        CONFIG_ID,
        RUN_ID,
        SEED,
        PHASE,
        ATTEMPT,
        STEP,
        Column("index", "int64", "number of the text within the step, from 0"),
        Column("prompt", "string", "what the model was given"),
        Column("response", "string", "what it wrote"),
        Column("extracted", "string", "the answer found in the response", nullable=True),
        Column("gold", "string", "the right answer", nullable=True),
        Column("reward", "double", "reward of the response; with a `gold` 1 for right and 0 for wrong", nullable=True),
        REPORTED_AT,
    ),
    key=("run_id", "step", "index"),
    keep=("attempt DESC", "reported_at DESC"),
)

EVENTS = Table(
    name="events",
    doc="What happened to the study, in the order of `time`.",
    columns=(
        STUDY,
        Column("time", "timestamp", "when it happened"),
        ATTEMPT,
        Column(
            "kind",
            "string",
            "what happened: `launch`, `resume`, `configuration_started`, `configuration_completed`, "
            "`configuration_stopped`, `run_failed`, `run_diverged`, `trial_restarted`, `workers_restarted`, "
            "`interrupted`, `finished` and others",
        ),
        Column("config_id", "string", "the configuration it is about", nullable=True),
        Column("run_id", "string", "the run it is about", nullable=True),
        Column("message", "string", "the event in one sentence"),
    ),
    key=(),
    keep=(),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (CONFIGURATIONS, RUNS, METRICS, DECISIONS, GENERATIONS, EVENTS)
}


def markdown() -> str:
    """The reference of all tables as Markdown: what `docs/results.md` contains between its markers."""
    return "\n\n".join(_table_markdown(table) for table in TABLES.values()) + "\n"


def _table_markdown(table: Table) -> str:
    lines = [f"### {table.name}", "", table.doc, "", table.rule, ""]
    lines += ["| column | type | meaning |", "|---|---|---|"]
    for column in table.columns:
        kind = f"{column.type}, may be null" if column.nullable else column.type
        lines.append(f"| `{column.name}` | {kind} | {column.doc} |")
    lines.extend(_EXTRA_MARKDOWN[table.extra])
    return "\n".join(lines)


_EXTRA_MARKDOWN: dict[Extra, list[str]] = {
    "none": [],
    "metrics": ["| `<metric>` | double, may be null | one column per metric that the trainable reports |"],
    "config": [
        f"| `{CONFIG_PREFIX}<dotted path>` | bool, int64, double or string, may be null "
        "| one column per value of the resolved configuration; lists and mappings as JSON text |"
    ],
}


def _code(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


if __name__ == "__main__":
    print(markdown(), end="")
