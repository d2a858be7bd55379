"""Ids outlive versions: a field that is added later does not change the ids of what was there before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from rung.identity import ADDED_LATER, essential
from rung.plan import make_plan
from rung.study import load_study

STUDIES = Path(__file__).resolve().parents[2] / "search_spaces" / "modular_arithmetic"


class Filter(BaseModel):
    kind: str = "none"
    window: Annotated[int, ADDED_LATER] = 5


class Model(BaseModel):
    width: int = 8
    filter: Annotated[Filter, ADDED_LATER] = Filter()
    other: Filter | None = None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {"width": 8, "other": None}),
        ({"filter": {"kind": "none"}}, {"width": 8, "other": None}),
        ({"filter": {"kind": "mean"}}, {"width": 8, "filter": {"kind": "mean"}, "other": None}),
        ({"filter": {"window": 6}}, {"width": 8, "filter": {"kind": "none", "window": 6}, "other": None}),
        ({"other": {}}, {"width": 8, "other": {"kind": "none"}}),
    ],
)
def test_a_field_added_later_counts_where_it_differs_from_its_default(
    given: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert essential(Model, Model.model_validate(given).model_dump(mode="json")) == kept


def test_a_shipped_study_has_the_ids_it_had_in_the_first_version() -> None:
    plan = make_plan(load_study(STUDIES / "e1-sanity.yaml"))
    assert sorted(each.config_id for each in plan.configurations) == ["c09e0e2012746", "c9cb61677b872"]
    filtered = make_plan(load_study(STUDIES / "e1-sanity.yaml", ["base.optimizer.grokfast.kind=ema"]))
    assert not {each.config_id for each in filtered.configurations} & {"c09e0e2012746", "c9cb61677b872"}
