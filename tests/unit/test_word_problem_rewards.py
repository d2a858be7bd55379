"""Rewards: points of every function by hand, the sets, rewards of one's own, and what is wrong with a bad one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from rung.configuration import Resolver
from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.space import expand
from rung.space_reader import read_space
from rung.trainable import Trainable
from trainables.rl.rewards import Reward, RewardFunction, RewardsConfig, find_reward, judge
from trainables.word_problems.extraction import extract_answer, read_response
from trainables.word_problems.rewards import REWARDS, SETS, WordProblemRewards

WHOLE = "<think>\n6 x 2 = 12\n</think>\n<answer>\n12\n</answer>\n"
SHORT = WHOLE.rstrip()
MONEY = "<think>6 x 2</think><answer>$12.00</answer>"
BARE = "<answer>12</answer>"
UNCLOSED = "<think>6 x 2 = 12</think><answer>12"
WRONG = "<think>a</think>\n<answer>13</answer>"
TALK = "It is 12."


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (WHOLE, "12"),
        (UNCLOSED, "12"),
        (TALK, "It is 12."),
        ("<answer>7</answer> or <answer> 12 </answer>.", "12"),
        ("</answer><answer>12</answer></answer>", "12"),
        ("<answer></answer>", ""),
        ("", ""),
    ],
)
def test_the_answer_stands_behind_the_last_tag(response: str, answer: str) -> None:
    assert extract_answer(response) == answer


def test_a_response_is_read() -> None:
    reading = read_response(MONEY, "12")
    assert (reading.extracted, reading.normalised) == ("$12.00", "12")
    assert reading.is_number
    assert reading.is_right
    assert reading.is_formatted
    assert not read_response(BARE, "12").is_formatted
    assert not read_response("<answer>7 or 12</answer>", "12").is_number


@pytest.mark.parametrize(
    ("name", "points"),
    [
        #                WHOLE  SHORT  MONEY  BARE  UNCLOSED  WRONG  TALK
        ("correctness", (2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 2.0)),
        ("digit", (0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.0)),
        ("hard_format", (0.5, 0.5, 0.5, 0.25, 0.0, 0.5, 0.0)),
        ("mark", (0.5, 0.5, 0.5, 0.25, 0.375, 0.5, 0.0)),
        ("strict_format", (0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("mark_once", (0.5, 0.375, 0.0, 0.0, 0.0, 0.125, 0.0)),
        ("soft_format", (0.5, 0.5, 0.5, 0.0, 0.0, 0.5, 0.0)),
        # SHORT: four times .125, less .001 for each of its 49 characters, since no line end stands behind
        # </answer>, plus .001, since nothing does.
        ("xml_count", (0.5, 0.5 - 0.049 + 0.001, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("exact_format", (3.0, 3.0, 3.0, 0.0, 0.0, 3.0, 0.0)),
        ("near_format", (2.0, 2.0, 2.0, -1.0, 0.5, 2.0, -4.0)),
        ("near_answer", (3.5, 3.5, 3.5, -2.0, -2.0, 2.0, -2.0)),
        ("number", (3.5, 3.5, 3.5, 3.5, 3.5, -1.5, -2.5)),
    ],
)
def test_points(name: str, points: tuple[float, ...]) -> None:
    responses = [WHOLE, SHORT, MONEY, BARE, UNCLOSED, WRONG, TALK]
    assert REWARDS[name]([""] * 7, responses, ["12"] * 7) == pytest.approx(points)


def test_every_reward_has_points_in_the_table() -> None:
    mark = next(each for each in test_points.pytestmark if each.name == "parametrize")
    assert [name for name, _ in mark.args[1]] == list(REWARDS)


@pytest.mark.parametrize(
    ("answer", "gold", "points"),
    [
        ("12", "12", 5.0),
        ("12.0", "12", 3.5),
        ("110", "100", 2.0),
        ("80", "100", 1.5),
        ("79", "100", -2.5),
        ("-105", "-100", 2.0),
        ("105", "-100", -2.5),
        ("1", "0", -2.5),
        ("many", "100", -4.5),
    ],
)
def test_near_answers(answer: str, gold: str, points: float) -> None:
    response = f"<think>a</think><answer>{answer}</answer>"
    assert REWARDS["near_answer"]([""], [response], [gold]) == [points]


@pytest.mark.parametrize(
    ("name", "most"), [("tags", 3.5), ("strict", 3.5), ("willccbb", 4.0), ("unsloth", 3 + 2 + 5 + 3.5)]
)
def test_the_most_that_a_set_gives(name: Any, most: float) -> None:
    response = (
        "<think>\na\n</think>\n<answer>\n12\n</answer>\n"
        if name != "unsloth"
        else "<think>a</think><answer>12</answer>"
    )
    config = WordProblemRewards(set=name)
    assert config.weights == dict.fromkeys(SETS[name], 1.0) == {key: 1.0 for key in REWARDS if key in SETS[name]}
    assert judge(config.functions(), [""], [response], ["12"]).total == [most]


def test_weights_change_the_total_and_not_the_parts() -> None:
    config = WordProblemRewards(correctness=0.5, digit=0, soft_format=2)
    assert config.weights == {"correctness": 0.5, "hard_format": 1, "mark": 1, "soft_format": 2}
    judgement = judge(config.functions(), ["", ""], [WHOLE, TALK], ["12", "12"])
    assert judgement.total == [1 + 0.5 + 0.5 + 1, 1.0]
    assert judgement.parts == {
        "correctness": [2.0, 2.0],
        "hard_format": [0.5, 0.0],
        "mark": [0.5, 0.0],
        "soft_format": [0.5, 0.0],
    }


def test_a_set_can_be_laid_over_complete_values() -> None:
    """As studies do it: what they leave out is taken from the defaults, written out."""
    values = {**WordProblemRewards(mark=0.5).model_dump(), "set": "willccbb"}
    assert WordProblemRewards(**values).weights == {"mark": 0.5, **dict.fromkeys(SETS["willccbb"], 1.0)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"set": "own"}, "nothing to learn"),
        ({"correctness": 0, "digit": 0, "hard_format": 0, "mark": 0}, "nothing to learn"),
        ({"own": {"brevity": {"function": "brevity"}}}, "package.module:function"),
        ({"own": {"digit": {"function": "a:b"}}}, "rewards/digit is logged already"),
        ({"own": {"mean": {"function": "a:b"}}}, "rewards/mean is logged already"),
        ({"own": {"my.own": {"function": "a:b"}}}, "letters, digits and _"),
        ({"corectness": 1}, "Extra inputs"),
        ({"mark": float("nan")}, "finite"),
        ({"set": ["tags"]}, "should be 'tags'"),
    ],
)
def test_a_bad_configuration_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        WordProblemRewards(**values)


MODULE = """
import lengths_of

def brevity(prompts, responses, answers):
    return [1.0 / len(response) for response in responses]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a reward, on the import path."""
    name = f"rewards_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE.replace("import lengths_of\n", ""))
    (tmp_path / f"{name}_broken.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_own_rewards_are_added(own: str) -> None:
    config = WordProblemRewards(set="own", own={"brevity": {"function": f"{own}:brevity", "weight": -2}})
    judgement = judge(config.functions(), [""] * 2, ["ab", "abcd"], [""] * 2)
    assert judgement.total == [-1.0, -0.5]
    assert judgement.parts == {"brevity": [0.5, 0.25]}


def test_an_own_reward_that_raises_is_named_with_its_line(own: str) -> None:
    config = WordProblemRewards(own={"short": {"function": f"{own}:brevity"}})
    with pytest.raises(RungError, match=rf"'short' failed with ZeroDivisionError: .*\({own}\.py, line 4\)"):
        judge(config.functions(), ["", ""], ["a", ""], ["1", "1"])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no_such_module:brevity", r"ModuleNotFoundError: No module named 'no_such_module'\. Its .* PYTHONPATH"),
        ("OWN:brevty", r"has no function 'brevty' \(did you mean 'brevity'"),
        ("OWN_broken:brevity", r"lengths_of.*\(OWN_broken.py, line 2\)"),
    ],
)
def test_an_own_reward_that_is_not_there(own: str, place: str, words: str) -> None:
    with pytest.raises(RungError, match=words.replace("OWN", own)):
        find_reward(place.replace("OWN", own))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1.0], "returned 1 numbers for 2 responses"),
        ([1.0, math.nan], r"returned nan for the response 'b' \(the right answer is '2'\)"),
        ([math.inf, 1.0], "returned inf"),
        ([1.0, None], "failed with TypeError"),
        (None, "failed with TypeError"),
        (["x", 1.0], "failed with ValueError"),
    ],
)
def test_a_reward_that_returns_something_else(returned: Any, words: str) -> None:
    reward = Reward("odd", lambda prompts, responses, answers: returned)
    with pytest.raises(RungError, match=f"'odd' {words}"):
        judge([reward], ["", ""], ["a", "b"], ["1", "2"])


def _exact(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    return [float(response == answer) for response, answer in zip(responses, answers, strict=True)]


class OtherRewards(RewardsConfig):
    """Of another family."""

    built_in: ClassVar[Mapping[str, RewardFunction]] = {"exact": _exact}
    exact: float = 3.0
    """1 point for the very text."""


def test_another_family_has_rewards_of_its_own() -> None:
    assert judge(OtherRewards().functions(), [""] * 2, ["1", "2"], ["1", "1"]).total == [3.0, 0.0]
    with pytest.raises(ValidationError, match="there are: exact"):
        OtherRewards(exact=0)


class Config(TrainableConfig):
    """Of a trainable with these rewards."""

    rewards: WordProblemRewards = WordProblemRewards()
    """The rewards."""


class Judged(Trainable[Config, None]):
    """Has a configuration and nothing else."""

    Config = Config


def test_sets_and_weights_are_swept() -> None:
    base = {"rewards": {"own": {"brevity": {"function": "my_rewards:brevity"}}}}
    space = {
        "rewards.set": ["tags", "unsloth"],
        "rewards.correctness": [0.5, None],
        "rewards.own.brevity.weight": [-0.5, 0.0],
    }
    dimensions, problems = read_space(space)
    assert problems == []
    resolver = Resolver("judged", Judged, base, dimensions)
    made = resolver.expansion(expand(dimensions, 1, 0, resolver.base_value)).configurations
    assert len(made) == 8
    assert made[0].config.rewards.weights == {**dict.fromkeys(SETS["tags"], 1.0), "correctness": 0.5, "brevity": -0.5}
    assert made[-1].config.rewards.weights == dict.fromkeys(SETS["unsloth"], 1.0)
    columns = made[0].columns()
    assert columns["config.rewards.correctness"] == 0.5
    assert columns["config.rewards.own.brevity.weight"] == -0.5
    assert "my_rewards:brevity" in columns["config.rewards.own"]


def test_a_model_that_repeats_a_tag_costs_no_time() -> None:
    """Regular expressions took seconds for this, cubic in its length."""
    response = "<think></think>" * 20_000
    before = time.process_time()
    for name in ("hard_format", "strict_format", "exact_format", "near_answer"):
        REWARDS[name](["?"], [response], ["5"])
    assert not read_response(response, "5").is_formatted
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    ("response", "points"),
    [
        ("<think>a</think><answer>5</answer>", 5.0),
        (" <think>a</think> then <answer>5.0</answer>\n", 3.5),
        ("<think></think></think><answer>5</answer>", 5.0),
        ("<think></think><answer>5</answer>", -2.0),
        ("<think>a</think><answer></answer>", -2.0),
        ("<think>a</think><answer>5</answer> done", -2.0),
        ("<think>a</think><answer>five?</answer>", -4.5),
    ],
)
def test_an_answer_counts_where_the_response_is_two_blocks_from_end_to_end(response: str, points: float) -> None:
    assert REWARDS["near_answer"](["?"], [response], ["5"]) == [points]
