"""Each rule by itself: cases worked by hand, and properties over many orders of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.tuning.schedulers import (
    Asha,
    Bracket,
    Decision,
    Expectation,
    Fifo,
    HyperBand,
    MedianStopping,
    RungRow,
    Scheduler,
    SynchronousHalving,
    expected_survivors,
    geometric_levels,
)
from rung.tuning.schedulers.hyperband import deal, paper_shares
from tests.sweep_simulation import Sweep, simulate

IDS = tuple("abcdefghi")


def asha(ids: Sequence[str] = IDS, levels: Sequence[int] = (1000, 3000), **options: Any) -> Asha:
    return Asha(levels=levels, mode="max", configurations=ids, **options)


def halving(ids: Sequence[str] = IDS, levels: Sequence[int] = (1000, 3000), **options: Any) -> SynchronousHalving:
    return SynchronousHalving(levels=levels, mode="max", configurations=ids, **options)


def arrive(scheduler: Scheduler, level: int, values: Sequence[float | None]) -> list[Decision]:
    """Values of the configurations a, b, c, ... in that order."""
    return [d for config_id, value in zip(IDS, values, strict=False) for d in scheduler.report(config_id, level, value)]


def letters(decisions: Sequence[Decision]) -> str:
    """The configurations that go on."""
    return "".join(sorted(d.config_id for d in decisions if d.decision == "continue"))


# FIFO


def test_fifo_continues_and_records_nothing() -> None:
    scheduler = Fifo(levels=(10,), mode="min", configurations=("a",))
    assert scheduler.levels_of("a") == ()
    assert [d.decision for d in scheduler.report("a", 10, None)] == ["continue"]
    assert scheduler.withdraw("a") == []
    assert scheduler.rung_table() == []
    assert expected_survivors(scheduler) == []


# ASHA


def test_asha_by_hand() -> None:
    decisions = arrive(asha(), 1000, [0.5, 0.4, 0.6, 0.55, 0.52, 0.7, 0.58])
    # n:        1    2    3    4     5     6    7
    # keep:     1    1    1    2     2     2    3
    # rank:     1    2    1    2     3     1    3
    assert [(d.rank, d.compared, d.threshold) for d in decisions] == [
        (1, 1, 0.5),
        (2, 2, 0.5),
        (1, 3, 0.6),
        (2, 4, 0.55),
        (3, 5, 0.55),
        (1, 6, 0.6),
        (3, 7, 0.58),
    ]
    assert letters(decisions) == "acdfg"


def test_asha_speaks_to_a_student() -> None:
    scheduler = asha()
    decisions = arrive(scheduler, 1000, [0.7, 0.655, 0.5, 0.45, 0.3, 0.412, None])
    assert decisions[0].reason == ("mean 0.7 is the first at 1000: nothing to compare it with yet, so it goes on")
    assert decisions[1].reason == "mean 0.655 ranks 2 of 2 at 1000; only the best goes on (threshold 0.7)"
    assert decisions[5].reason == "mean 0.412 ranks 5 of 6 at 1000; the best 2 go on (threshold 0.655)"
    assert decisions[6].reason == (
        "no usable value at 1000 (diverged or missing), which counts as the worst: rank 7 of 7, so it stops"
    )
    assert scheduler.rung_table() == [RungRow(0, 1000, 7, 1, 6, 0), RungRow(0, 3000, 0, 0, 0, 0)]


def test_asha_depends_on_the_order_of_arrival() -> None:
    assert letters(arrive(asha(), 1000, [0.1, 0.2, 0.3, 0.4])) == "abcd"
    assert letters(arrive(asha(), 1000, [0.4, 0.3, 0.2, 0.1])) == "a"


def test_asha_lets_ties_pass_together() -> None:
    decisions = arrive(asha(), 1000, [1.0, 1.0, 1.0, 1.0])
    assert letters(decisions) == "abcd"
    assert {d.rank for d in decisions} == {1}


def test_asha_stops_nobody_with_a_value_before_the_minimum() -> None:
    decisions = arrive(asha(minimum=4), 1000, [0.4, 0.3, None, 0.2, 0.35])
    assert [d.decision for d in decisions] == ["continue", "continue", "stop", "stop", "continue"]
    assert [d.threshold for d in decisions] == [None, None, None, 0.3, 0.35]
    assert decisions[1].reason == "mean 0.3 ranks 2 of 2 at 1000; nobody is stopped before 4 have got there"


def test_asha_has_no_threshold_where_any_value_would_go_on() -> None:
    decisions = arrive(asha(), 1000, [None, None, None, 0.1])
    assert decisions[3].decision == "continue"
    assert decisions[3].threshold is None
    assert decisions[3].reason == "mean 0.1 ranks 1 of 4 at 1000; the best 2 go on"


def test_asha_counts_at_a_rung_only_who_got_there() -> None:
    scheduler = asha()
    arrive(scheduler, 1000, [0.1, 0.2, 0.3])
    decisions = [scheduler.report("c", 3000, 0.5)[0], scheduler.report("a", 3000, 0.4)[0]]
    assert [(d.rank, d.compared, d.decision) for d in decisions] == [(1, 1, "continue"), (2, 2, "stop")]


@given(st.permutations([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]))
@settings(deadline=None)
def test_asha_always_keeps_the_best_at_a_rung(values: list[float]) -> None:
    decisions = arrive(asha(), 1000, values)
    assert decisions[values.index(0.9)].decision == "continue"
    last = decisions[-1]
    assert (last.decision == "continue") == (values[-1] >= 0.7), "the last is judged as by halving"


# Synchronous halving


def test_halving_by_hand() -> None:
    scheduler = halving("abcdef")
    assert arrive(scheduler, 1000, [0.7, 0.655, 0.5, 0.45, 0.3]) == []
    assert scheduler.rung_table()[0] == RungRow(0, 1000, 5, 0, 0, 5)
    decisions = scheduler.report("f", 1000, 0.412)
    assert [d.config_id for d in decisions] == list("abcdef")
    assert letters(decisions) == "ab"
    assert decisions[5].reason == "mean 0.412 ranks 5 of 6 at 1000; the best 2 go on (threshold 0.655)"
    assert scheduler.report("b", 3000, 0.8) == []
    assert scheduler.report("b", 3000, 0.9) == [], "it waits: the first value stands"
    decisions = scheduler.report("a", 3000, 0.75)
    assert [(d.config_id, d.value, d.threshold, d.decision) for d in decisions] == [
        ("a", 0.75, 0.8, "stop"),
        ("b", 0.8, 0.8, "continue"),
    ]


def test_halving_lets_everybody_survive_who_ties_with_the_last_survivor() -> None:
    decisions = arrive(halving("abcdef"), 1000, [0.9, 0.5, 0.5, 0.5, 0.4, 0.4])
    assert letters(decisions) == "abcd"
    assert [d.rank for d in decisions] == [1, 2, 2, 2, 5, 5]


def test_halving_counts_missing_values_but_lets_none_of_them_on() -> None:
    decisions = arrive(halving("abcdef"), 1000, [None, None, 0.1, None, None, None])
    assert letters(decisions) == "c"
    assert decisions[2].threshold is None
    assert {d.rank for d in decisions} == {1, 2}


def test_halving_waits_for_nobody_who_was_withdrawn() -> None:
    scheduler = halving("abcd")
    arrive(scheduler, 1000, [0.1, 0.2, 0.3])
    decisions = scheduler.withdraw("d")
    assert letters(decisions) == "c"
    assert {d.compared for d in decisions} == {3}
    assert scheduler.withdraw("c") == []


def test_halving_counts_who_was_withdrawn_after_reporting() -> None:
    scheduler = halving("abc")
    assert scheduler.report("a", 1000, 0.9) == []
    assert scheduler.withdraw("a") == []
    assert scheduler.report("b", 1000, 0.5) == []
    assert letters(scheduler.report("c", 1000, 0.4)) == "a"


def test_halving_a_lonely_configuration_goes_on() -> None:
    (decision,) = halving("a").report("a", 1000, 0.5)
    assert decision.reason == "mean 0.5 is the only one at 1000, so it goes on"


def test_halving_nobody_moves_while_it_waits() -> None:
    scheduler = halving("ab")
    scheduler.report("a", 1000, 0.5)
    with pytest.raises(ValueError, match="'a' waits at level 1000 and reports at level 3000"):
        scheduler.report("a", 3000, 0.5)


def test_halving_compares_configurations_added_later_with_everybody() -> None:
    first = arrive(halving("abc"), 1000, [0.5, 0.4, 0.3])
    wider = halving("abcdef")
    wider.restore(first)
    assert wider.report("a", 3000, 0.9) == [], "the new ones may still get there"
    assert wider.report("d", 1000, 0.45) == []
    assert wider.report("e", 1000, 0.2) == []
    decisions = wider.report("f", 1000, 0.1)
    assert [(d.config_id, d.rank, d.compared, d.decision) for d in decisions] == [
        ("d", 2, 6, "continue"),
        ("e", 5, 6, "stop"),
        ("f", 6, 6, "stop"),
    ]
    assert letters(wider.report("d", 3000, 0.8)) == "a"


def test_halving_a_lost_row_of_a_lower_rung_holds_nobody_up() -> None:
    first = halving("abc")
    rows = [*arrive(first, 1000, [0.4, 0.3, 0.2]), *first.report("a", 3000, 0.5)]
    scheduler = halving("abcd")
    scheduler.restore(row for row in rows if (row.config_id, row.level) != ("a", 1000))
    assert letters(scheduler.report("d", 1000, 0.35)) == "d"


LEVELS = (1, 3, 9)
BUDGET = 27
values = st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
tables = st.integers(1, 9).flatmap(
    lambda count: st.fixed_dictionaries(
        {config_id: st.fixed_dictionaries(dict.fromkeys(LEVELS, values)) for config_id in IDS[:count]}
    )
)
exits = st.dictionaries(st.sampled_from(IDS), st.sampled_from(LEVELS), max_size=3)


@st.composite
def arrivals(draw: st.DrawFn) -> dict[str, Any]:
    """How many workers there are and how fast each configuration trains: in effect, an order of arrival."""
    speeds = draw(st.permutations(range(1, len(IDS) + 1)))
    return {"workers": draw(st.integers(1, 9)), "speeds": dict(zip(IDS, speeds, strict=True))}


def synchronous(rule: type[SynchronousHalving], table: dict[str, dict[int, float | None]], **how: Any) -> Sweep:
    scheduler = rule(levels=LEVELS, mode="max", configurations=sorted(table))
    return simulate(scheduler, table, BUDGET, **how)


@pytest.mark.parametrize("rule", [SynchronousHalving, HyperBand])
@given(table=tables, fails=exits, ends=exits, one=arrivals(), other=arrivals(), order=st.randoms())
@settings(max_examples=80, deadline=None)
def test_synchronous_rules_do_not_see_the_order_of_arrival(
    rule: type[SynchronousHalving], table: Any, fails: Any, ends: Any, one: Any, other: Any, order: Any
) -> None:
    shuffled = sorted(table)
    order.shuffle(shuffled)
    first = synchronous(rule, table, fails=fails, ends=ends, **one)
    second = synchronous(rule, {c: table[c] for c in shuffled}, fails=fails, ends=ends, **other)
    assert first.verdicts() == second.verdicts()
    assert sorted(first.completed) == sorted(second.completed)


@pytest.mark.parametrize("rule", [SynchronousHalving, HyperBand])
@given(table=tables, fails=exits, ends=exits, one=arrivals(), other=arrivals(), cut=st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_synchronous_rules_do_not_see_an_interruption(
    rule: type[SynchronousHalving], table: Any, fails: Any, ends: Any, one: Any, other: Any, cut: float
) -> None:
    """Cut anywhere, also between two decisions that fell together, and gone on in another order."""
    straight = synchronous(rule, table, fails=fails, ends=ends, **one)
    recorded = straight.decisions[: round(cut * len(straight.decisions))]
    resumed = synchronous(rule, table, fails=fails, ends=ends, recorded=recorded, **other)
    assert resumed.verdicts() == straight.verdicts()
    assert len(resumed.decisions) == len(straight.decisions), "nothing is decided twice"


@given(table=tables, order=st.randoms(), how=arrivals())
@settings(max_examples=50, deadline=None)
def test_halving_does_not_see_the_order_of_the_plan(table: Any, order: Any, how: Any) -> None:
    shuffled = sorted(table)
    order.shuffle(shuffled)
    scheduler = SynchronousHalving(levels=LEVELS, mode="max", configurations=shuffled)
    replanned = simulate(scheduler, table, BUDGET, **how)
    assert replanned.verdicts() == synchronous(SynchronousHalving, table).verdicts()


# Median stopping


def median_stopping(**options: Any) -> MedianStopping:
    return MedianStopping(levels=(10, 20), mode="max", configurations=IDS, **options)


def test_median_stopping_by_hand() -> None:
    scheduler = median_stopping()
    at_10 = arrive(scheduler, 10, [0.2, 0.4, 0.6, 0.3, 0.5])
    # d: median of 0.2 0.4 0.6 is 0.4, above 0.3; e: median of 0.2 0.3 0.4 0.6 is 0.35, below 0.5
    assert [(d.threshold, d.decision) for d in at_10] == [
        (None, "continue"),
        (None, "continue"),
        (None, "continue"),
        (0.4, "stop"),
        (0.35, "continue"),
    ]
    assert at_10[2].reason == "best mean so far 0.6 at 10; nobody is stopped before 3 others have got there, 2 have"
    assert at_10[3].reason == (
        "best mean so far 0.3 at 10 is worse than 0.4, the median of the running averages of 3 others"
    )
    assert (at_10[3].rank, at_10[3].compared) == (3, 4)
    for config_id, value in (("b", 0.5), ("c", 0.8), ("e", 0.9)):
        assert scheduler.report(config_id, 20, value)[0].threshold is None
    # Averages up to 20: b 0.45, c 0.7, e 0.7. The best of a so far is its first value.
    (decision,) = scheduler.report("a", 20, 0.1)
    assert (decision.threshold, decision.value, decision.rank) == (0.7, 0.1, 4)
    assert decision.reason.startswith("best mean so far 0.2 at 20 is worse than 0.7")


def test_median_stopping_judges_the_best_so_far_and_lets_ties_pass() -> None:
    scheduler = median_stopping(min_samples=1)
    arrive(scheduler, 10, [0.1, 0.1])
    assert letters([scheduler.report("a", 20, 0.1)[0], scheduler.report("b", 20, -5.0)[0]]) == "ab"


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e308, -1e308, 5e-324])
def test_median_stopping_stops_nobody_among_equal_flat_curves(value: float) -> None:
    """Averages computed with rounding would."""
    scheduler = MedianStopping(levels=(1, 2, 3), mode="min", configurations=IDS, min_samples=1)
    for level in (1, 2, 3):
        assert letters(arrive(scheduler, level, [value] * 9)) == "".join(IDS)


def test_median_stopping_goes_on_where_most_others_have_no_value() -> None:
    decisions = arrive(median_stopping(), 10, [None, None, 0.5, 0.1])
    assert decisions[3].decision == "continue"
    assert decisions[3].reason.endswith("the median of the 3 others has no value, so it goes on")


# HyperBand


def test_hyperband_deals_in_the_proportions_of_the_paper() -> None:
    # Five brackets: ceil(5 / 5 * 81), ceil(5 / 4 * 27), ceil(5 / 3 * 9), ceil(5 / 2 * 3), 5.
    assert paper_shares(4, 3) == [81, 34, 15, 8, 5]
    assert paper_shares(2, 3) == [9, 5, 3]
    assert paper_shares(0, 3) == [1]
    assert [deal(17, [9, 5, 3]).count(bracket) for bracket in range(3)] == [9, 5, 3]
    assert [deal(6, [9, 5, 3]).count(bracket) for bracket in range(3)] == [3, 2, 1]
    assert deal(40, [9, 5, 3])[:17] == deal(17, [9, 5, 3])


def test_hyperband_gives_each_bracket_its_own_first_rung() -> None:
    scheduler = HyperBand(levels=(10, 30), mode="max", configurations="abcdef")
    assert scheduler.brackets() == (
        Bracket(0, (10, 30), ("a", "c", "e")),
        Bracket(1, (30,), ("b", "f")),
        Bracket(2, (), ("d",)),
    )
    assert [scheduler.levels_of(config_id) for config_id in "abd"] == [(10, 30), (30,), ()]
    with pytest.raises(ValueError, match=r"'b' is not compared at level 10, only at \(30,\)"):
        scheduler.report("b", 10, 0.5)


def test_hyperband_brackets_do_not_wait_for_each_other() -> None:
    scheduler = HyperBand(levels=(10, 30), mode="max", configurations="abcdef")
    scheduler.report("b", 30, 0.9)
    scheduler.report("a", 10, 0.3)
    scheduler.report("c", 10, 0.2)
    decisions = scheduler.report("e", 10, 0.1)
    assert [(d.config_id, d.bracket, d.compared, d.decision) for d in decisions] == [
        ("a", 0, 3, "continue"),
        ("c", 0, 3, "stop"),
        ("e", 0, 3, "stop"),
    ]
    assert decisions[1].reason == "mean 0.2 ranks 2 of 3 at 10 in bracket 0; only the best goes on (threshold 0.3)"
    assert RungRow(1, 30, 1, 0, 0, 1) in scheduler.rung_table()


def test_hyperband_leaves_a_decided_configuration_in_its_bracket() -> None:
    first = HyperBand(levels=(10, 30), mode="max", configurations="abcdef")
    decisions = [*first.report("b", 30, 0.9), *first.report("f", 30, 0.8)]
    other_order = HyperBand(levels=(10, 30), mode="max", configurations="bacdef")
    assert other_order.levels_of("b") == (10, 30)
    other_order.restore(decisions)
    assert other_order.levels_of("b") == (30,)
    assert [bracket.configurations for bracket in other_order.brackets()] == [
        ("c", "e"),
        ("b", "a", "f"),
        ("d",),
    ]
    assert other_order.report("c", 10, 0.5) == []
    assert letters(other_order.report("e", 10, 0.4)) == "c", "nobody waits for b there"
    assert other_order.report("b", 30, 0.0) == [decisions[0]]


# What `rung plan` asks


@pytest.mark.parametrize(
    ("grace", "factor", "budget", "levels"),
    [
        (1000, 3, 10_000, (1000, 3000)),
        (1000, 3, 9000, (1000, 3000)),
        (1, 2, 10, (1, 2, 4)),
        (1, 2, 12, (1, 2, 4, 8)),
        (900, 3, 1000, (900,)),
        (10, 3, 10, ()),
        (20, 3, 10, ()),
    ],
)
def test_geometric_levels(grace: int, factor: int, budget: int, levels: tuple[int, ...]) -> None:
    assert geometric_levels(grace, factor, budget) == levels


@pytest.mark.parametrize("wrong", [(0, 3, 10), (1, 1, 10), (1, 3, 0)])
def test_geometric_levels_refuses(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        geometric_levels(*wrong)


def test_expected_survivors_of_synchronous_rules_are_exact() -> None:
    ids = [f"c{index}" for index in range(17)]
    assert expected_survivors(halving(ids)) == [
        Expectation(0, 1000, 17, 6),
        Expectation(0, 3000, 6, 2),
    ]
    scheduler = HyperBand(levels=(10, 30), mode="max", configurations=ids)
    expected = expected_survivors(scheduler)
    assert expected == [Expectation(0, 10, 9, 3), Expectation(0, 30, 3, 1), Expectation(1, 30, 5, 2)]
    table = {config_id: {10: float(index), 30: float(index)} for index, config_id in enumerate(ids)}
    simulate(scheduler, table, 90)
    reached = [(row.bracket, row.level, row.reported, row.continued) for row in scheduler.rung_table()]
    assert reached == [tuple(row) for row in expected]


@pytest.mark.parametrize("options", [{}, {"minimum": 3}, {"reduction_factor": 2}])
def test_expected_survivors_of_asha_are_the_average_over_all_orders(options: dict[str, Any]) -> None:
    orders = list(itertools.permutations([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    kept = sum(len(letters(arrive(asha("abcdef", **options), 1000, order))) for order in orders)
    expected = expected_survivors(asha("abcdef", **options))[0]
    assert expected.reach == 6
    assert expected.go_on == pytest.approx(kept / len(orders))


def test_expected_survivors_of_an_adaptive_search_need_a_count() -> None:
    scheduler = asha(ids=(), levels=(10,))
    assert expected_survivors(scheduler, 6) == expected_survivors(asha("abcdef", levels=(10,)))
    assert expected_survivors(scheduler) == [Expectation(0, 10, 0, 0)]
    assert scheduler.expected_to_continue(2.5) == pytest.approx(1.5 + 0.5 / 3)


def test_expected_survivors_of_median_stopping() -> None:
    assert expected_survivors(median_stopping())[0] == Expectation(0, 10, 9, 6)
