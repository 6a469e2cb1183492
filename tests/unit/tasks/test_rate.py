"""Task 1's prompt, output and check against what the product's page says."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tasks.profile import MAX_KG, MIN_KG, on_grid, profile_of
from serving.tasks.rate import answer as rate
from serving.tasks.rate.check import RULES, check_rate
from serving.tasks.registry import TASKS
from tests.kit.oracle import faults, heavy

TRAINING_PROFILE = profile_of(1, "남성", 4, (30, 30, 30, 30))
TRAINING_PROMPT = """## 질문
-5/3/1 프로그램
- **운동경험**: 1
- **성별**: 남성
- **운동목표**: 4
- **1RM**:
  - 벤치프레스: 30kg
  - 스쿼트: 30kg
  - 데드리프트: 30kg
  - 오버헤드프레스: 30kg

## 답변
"""
TRAINING_RATES = {
    "init_weight_rate": 45,
    "increase_rate_week": 10,
    "increase_rate_set": 5,
    "deloading_rate": 50,
}
TRAINING_PLAN = (
    "Week1\nSET1 45%x5\nSET2 50%x5\nSET3 55%x5+\n\nWeek2\nSET1 55%x3\nSET2 60%x3\nSET3 65%x3+\n\n"
    "Week3\nSET1 65%x5\nSET2 70%x3\nSET3 75%x1+\n\nWeek4\nSET1 50%x5\nSET2 55%x5\nSET3 60%x5\n"
)
CLASSIC = (65, 5, 10, 40)


def answer(rates: tuple[int, int, int, int], plan: str) -> dict[str, Any]:
    named = dict(zip(TRAINING_RATES, rates, strict=True))
    return {"program": rate.PROGRAM, **named, "weekly_weight_increase_plan": plan}


def test_the_prompt_is_the_training_example_byte_for_byte() -> None:
    assert TASKS["rate"].question(TRAINING_PROFILE).prompt == TRAINING_PROMPT


def test_the_training_example_s_answer_is_an_output() -> None:
    text = rate.OUTPUT.text(TRAINING_RATES)
    assert json.loads(text) == answer((45, 10, 5, 50), TRAINING_PLAN)
    assert faults(json.loads(text)) == []


def test_classic_531_comes_out_as_everybody_knows_it() -> None:
    plan = rate.plan_text(*CLASSIC)
    percents = [line.split()[1].split("%")[0] for line in plan.split("\n") if "%" in line]
    assert percents == ["65", "75", "85", "70", "80", "90", "75", "85", "95", "40", "50", "60"]


def test_every_combination_is_right_by_oracle_and_by_check() -> None:
    count = 0
    for values in rate.OUTPUT.enumerate():
        whole = json.loads(rate.OUTPUT.text(values))
        assert faults(whole) == []
        assert check_rate(whole) == []
        count += 1
    assert count == 104


def test_the_language_has_every_combination_of_options_within_the_limits_and_no_other() -> None:
    options = [[option.value for option in decision.options] for decision in rate.OUTPUT.decisions]
    within = [list(rates) for rates in itertools.product(*options) if not heavy(rates)]
    assert [list(values.values()) for values in rate.OUTPUT.enumerate()] == within


FIRST_VERSION = [
    (55, 10, 5, 50, "55 60 65 60 65 70 65 75 85 50 55 60"),
    (65, 10, 5, 40, "65 75 85 70 80 90 75 85 95 40 45 50"),
    (55, 10, 5, 50, "55 60 65 60 65 70 65 75 85 50 55 60"),
]


@pytest.mark.parametrize("published", FIRST_VERSION)
def test_the_first_version_s_answers_are_caught(published: tuple[int, int, int, int, str]) -> None:
    rates, percents = published[:4], published[4]
    numbers = iter(percents.split())
    blocks = []
    for week, counts in enumerate((("5", "5", "5+"), ("3", "3", "3+"), ("5", "3", "1+"), "555"), 1):
        sets = [f"SET{s} {next(numbers)}%x{count}" for s, count in enumerate(counts, 1)]
        blocks.append("\n".join([f"Week{week}", *sets]))
    wrong = answer(rates, "\n\n".join(blocks) + "\n")
    assert check_rate(wrong) == ["percent"]
    assert faults(wrong)


BROKEN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "keys": lambda a: {k: v for k, v in a.items() if k != "program"},
    "program": lambda a: {**a, "program": "5/3/1"},
    "rates": lambda a: {**a, "init_weight_rate": "65"},
    "layout": lambda a: _plan(a, "SET2", "SET9"),
    "repetitions": lambda a: _plan(a, "x1+", "x2+"),
    "percent": lambda a: _plan(a, "75%", "76%"),
}


def _plan(given: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    plan = given["weekly_weight_increase_plan"].replace(old, new)
    return {**given, "weekly_weight_increase_plan": plan}


def test_every_rule_is_broken_by_a_test() -> None:
    assert {*BROKEN, "too_heavy", "deload"} == set(RULES)


@pytest.mark.parametrize("rule", BROKEN)
def test_the_check_names_the_rule_that_is_broken(rule: str) -> None:
    right = answer(CLASSIC, rate.plan_text(*CLASSIC))
    assert check_rate(right) == []
    unended = {**right, "weekly_weight_increase_plan": rate.plan_text(*CLASSIC)[:-1]}
    assert check_rate(unended) == ["layout"]
    assert check_rate(BROKEN[rule](right)) == [rule]


@pytest.mark.parametrize(
    ("rates", "broken"),
    [
        ((65, 5, 10, 40), []),  # the classic, at every limit
        ((66, 4, 10, 40), ["too_heavy"]),  # 86 % for five
        ((65, 6, 9, 40), []),
        ((65, 6, 10, 40), ["too_heavy"]),  # 91 % for three
        ((55, 15, 5, 40), []),
        ((56, 15, 5, 40), ["too_heavy"]),  # 96 % for one
        ((70, 5, 10, 35), ["too_heavy"]),  # 100 x 1 can be lifted, 90 x 5 cannot
        ((45, 10, 5, 50), []),  # five points heavier than week 1, from below 55 %
        ((45, 10, 5, 51), ["deload"]),
        ((54, 10, 5, 59), []),
        ((55, 10, 5, 55), ["deload"]),
        ((55, 10, 5, 54), []),
        ((75, 5, 10, 80), ["too_heavy", "deload"]),
        ((60, 1, 5, 40), []),
        ((60, 0, 5, 40), ["rates"]),
        ((60, 5, 5, -40), ["rates"]),
    ],
)
def test_no_set_is_too_heavy_for_its_repetitions_and_the_deload_is_rest(
    rates: tuple[int, int, int, int], broken: list[str]
) -> None:
    whole = answer(rates, rate.plan_text(*rates))
    assert check_rate(whole) == broken
    assert bool(faults(whole)) == bool(broken)


@given(kg=st.floats(MIN_KG, MAX_KG))
def test_prompt_weights_lie_on_the_grid_and_near_the_request(kg: float) -> None:
    assert abs(on_grid(kg) - kg) <= 1.25
    assert on_grid(kg) % 2.5 == 0
    assert MIN_KG <= on_grid(kg) <= MAX_KG


def test_fingerprints_change_with_prompt_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["rate"]
    prompt, output = task.prompt_fingerprint(), task.output_fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr("serving.tasks.prompt.ANSWER", "\n## 답\n")
        assert task.prompt_fingerprint() != prompt
    with monkeypatch.context() as patch:
        patch.setattr("serving.tasks.profile.STEP_KG", 5.0)
        assert task.prompt_fingerprint() != prompt
    with monkeypatch.context() as patch:
        patch.setattr("serving.tasks.rate.task.on_grid", lambda kg: kg)
        assert task.prompt_fingerprint() != prompt
    assert task.prompt_fingerprint() == prompt
    assert task.output_fingerprint() == output
