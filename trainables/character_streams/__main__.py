"""The workflow of nanoGPT's first experiment, on rung's engine.

    python -m trainables.character_streams new insert-spaces                 a folder to begin with
    python -m trainables.character_streams prepare STREAM --out=data/basic   tokens of a stream or a text file
    python -m trainables.character_streams train config/basic.py --max_iters=200
    python -m trainables.character_streams sample config/basic.py --num_samples=1 --max_new_tokens=100 --seed=2345
    python -m trainables.character_streams compare out/basic out/other       settings, numbers, curves, answers
    python -m trainables.character_streams report                            all runs of an experiment
    python -m trainables.character_streams bench config/basic.py             milliseconds per iteration

Every verb says more with --help. `train`, `sample` and `bench` take nanoGPT's configuration files and --key=value.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.errors import RungError
from trainables.character_streams.nanogpt.keys import BENCH_DEFAULTS, Keys

KEY_VERBS = {"train": "trains a run", "sample": "writes texts", "bench": "measures the speed of training"}
"""The verbs that take nanoGPT's keys."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the status of the process."""
    # torch's default of one thread per core makes small models slower wherever anything else runs.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        _run(_parsed(sys.argv[1:] if arguments is None else list(arguments)))
    except RungError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    found, rest = parser.parse_known_args(arguments)
    if found.verb in KEY_VERBS:
        # In their order, because later ones win: argparse would put files before keys.
        found.keys = arguments[1:]
        return found
    settings = [each for each in rest if found.verb == "prepare" and each.startswith("--") and "=" in each]
    found.settings = {name: _literal(value) for name, _, value in (each[2:].partition("=") for each in settings)}
    if unknown := [argument for argument in rest if argument not in settings]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.character_streams",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    new = verbs.add_parser("new", help="makes the folder of a new experiment")
    new.add_argument("folder", type=Path, help="name of the experiment")
    prepare = verbs.add_parser(
        "prepare",
        help="writes train.bin, val.bin and meta.json of a stream or a text file",
        epilog="More settings are written --name=value: characters, validation_fraction, held_out, those of a stream "
        "that comes with rung (alphabet, shortest, longest, digits, ...), or the options of a function of your own.",
    )
    prepare.add_argument("source", help="a stream, package.module:function, path/to/file.py:function, or a text file")
    prepare.add_argument("--out", type=Path, default=Path("data/basic"), help="folder of the files (data/basic)")
    prepare.add_argument("--seed", type=int, default=0, help="of the stream (0)")
    for verb, about in KEY_VERBS.items():
        keyed = verbs.add_parser(verb, help=about, epilog=_keys_help(), formatter_class=argparse.RawTextHelpFormatter)
        keyed.add_argument("files", nargs="*", metavar="CONFIG.py | --key=value")
    compare = verbs.add_parser("compare", help="what differs between two runs")
    compare.add_argument("first", type=Path, help="out_dir of a run")
    compare.add_argument("second", type=Path, help="out_dir of another")
    compare.add_argument("--picture", type=Path, default=Path("compare.png"), help="file of the curves (compare.png)")
    report = verbs.add_parser("report", help="a short report of all runs below a folder")
    report.add_argument("folder", type=Path, nargs="?", default=Path(), help="the experiment's folder")
    return parser


def _run(found: argparse.Namespace) -> None:
    """Imports what a verb needs, and no more: torch takes two seconds."""
    if found.verb == "new":
        from trainables.character_streams.nanogpt.scaffold import new_experiment

        print("\n".join(str(path) for path in new_experiment(found.folder)))
    elif found.verb == "prepare":
        from trainables.character_streams.nanogpt.prepare import prepare

        prepare(found.source, found.out, found.seed, **found.settings)
    elif found.verb in KEY_VERBS:
        _run_keys(found.verb, found.keys)
    elif found.verb == "compare":
        from trainables.character_streams.nanogpt.comparison import compare

        print(compare(found.first, found.second, found.picture))
    else:
        from trainables.character_streams.nanogpt.report import write_report

        print(write_report(found.folder))


def _run_keys(verb: str, arguments: list[str]) -> None:
    from trainables.character_streams.nanogpt.configuration_file import explain_variable, read_keys

    keys = read_keys(arguments, BENCH_DEFAULTS if verb == "bench" else None)
    if note := explain_variable():
        print(note, file=sys.stderr)
    if verb == "train":
        from trainables.character_streams.nanogpt.training import train_from_keys

        train_from_keys(keys)
    elif verb == "sample":
        from trainables.character_streams.nanogpt.sampling import sample_from_keys

        for text in sample_from_keys(keys):
            print(f"{text}\n---------------")
    else:
        from trainables.character_streams.nanogpt.bench import bench_from_keys

        print(bench_from_keys(keys))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _keys_help() -> str:
    lines = ["keys, their defaults, and what they mean:"]
    for name, field in Keys.model_fields.items():
        lines.append(f"  {name} = {field.default!r}\n      {' '.join((field.description or '').split())}")
    return "\n".join(lines).replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
