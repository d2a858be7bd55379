"""The files that are shipped in `search_spaces/`: studies, and pipelines of them."""

from pathlib import Path

from rung.pipeline import is_pipeline

ROOT = Path(__file__).resolve().parents[1] / "search_spaces"
FILES = sorted(ROOT.rglob("*.yaml"))
PIPELINES = [path for path in FILES if is_pipeline(path)]
STUDIES = [path for path in FILES if path not in PIPELINES]
