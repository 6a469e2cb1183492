"""Task 2's prompt, arithmetic and check against what the product's page says."""

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outlines.types import JsonSchema
from outlines.types.dsl import to_regex
from pydantic import ValidationError

from serving.tasks.month import answer as month
from serving.tasks.month.answer import BASIS_SHARE, MonthRequest
from serving.tasks.month.assistance import output_for, slots_of
from serving.tasks.month.check import RULES, check_month
from serving.tasks.month.examples import request_of
from serving.tasks.month.exercises import CATALOGUE, CATEGORIES, REPETITIONS, fitting
from serving.tasks.month.loading import MAX_STEP_KG, MIN_STEP_KG
from serving.tasks.month.week import DAYS, OWN, categories_of, day_name
from serving.tasks.profile import LIFTS, MAX_KG, MIN_KG, PUBLISHED, STANDARD_KG, standings
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.kit.oracle_month import month_faults

ENGINE_MAX_TOKENS = 2048
RATES_65 = {
    "init_weight_rate": 55, "increase_rate_week": 5, "increase_rate_set": 10, "deloading_rate": 40,
}  # fmt: skip
PROMPT = """## 질문
-5/3/1 한 달 보조 운동
- **운동경험**: 1
- **성별**: 남성
- **운동목표**: 1
- **주당 훈련일**: 2
- **최고 강도**: 85%
- **1RM**:
  - 벤치프레스: 40kg, 비슷
  - 스쿼트: 50kg, 비슷
  - 데드리프트: 55kg, 뒤처짐
  - 오버헤드프레스: 30kg, 앞섬

## 답변
"""
TASK = TASKS["month"]


def asked(**fields: Any) -> MonthRequest:
    return MonthRequest.model_validate(TASKS["month"].examples[3].model_dump() | fields)


def answered(request: MonthRequest, seed: int = 1) -> dict[str, Any]:
    values = TASK.question(request).output.sample(random.Random(seed))
    whole: dict[str, Any] = json.loads(month.render(request, values))
    return whole


@st.composite
def requests(draw: st.DrawFn) -> MonthRequest:
    kg = st.floats(MIN_KG, MAX_KG)
    return MonthRequest.model_validate(
        {
            "experience": draw(st.integers(1, 5)),
            "gender": "여성",
            "purpose": draw(st.integers(1, 6)),
            "rm_weight": {lift: draw(kg) for lift in LIFTS},
            "days_per_week": draw(st.integers(2, 4)),
            "rates": draw(st.sampled_from(list(rate.OUTPUT.enumerate()))),
            "basis": draw(st.sampled_from(list(BASIS_SHARE))),
            "plate_step": draw(st.integers(1, int(MAX_STEP_KG / MIN_STEP_KG))) * MIN_STEP_KG,
            **draw(st.sampled_from([{}, {"bar": 7.25}])),
        }
    )


def test_the_prompt_s_bytes() -> None:
    assert TASKS["month"].question(TASKS["month"].examples[0]).prompt == PROMPT


def test_the_catalogue_covers_every_lift_and_category_for_a_beginner() -> None:
    assert len(CATALOGUE) >= 40
    assert {e.level for e in CATALOGUE.values()} == {1, 2, 3, 4, 5}
    for exercise in CATALOGUE.values():
        assert exercise.muscles and set(exercise.lifts) <= set(LIFTS)
        assert not any(n != exercise.name and n.startswith(exercise.name) for n in CATALOGUE)
        assert set(exercise.builds) <= set(exercise.lifts)


EVERY_OUTPUT = [(experience, days) for experience in range(1, 6) for days in DAYS]


@pytest.mark.parametrize(("experience", "days_per_week"), EVERY_OUTPUT)
def test_every_slot_has_a_choice_and_one_that_builds_the_day_s_lift(
    experience: int, days_per_week: int
) -> None:
    for lifts in DAYS[days_per_week]:
        categories = categories_of(lifts, experience)
        assert {"pull", "core", *(OWN[lift] for lift in lifts)} <= set(categories)
        for category in categories:
            assert len(fitting(category, lifts, experience)) >= 3
        for lift in lifts:
            own = fitting(OWN[lift], lifts, experience)
            assert any(lift in exercise.builds for exercise in own)


@given(request=requests(), seed=st.integers(0, 10**6))
def test_every_month_is_right_by_oracle_and_by_check(request: MonthRequest, seed: int) -> None:
    whole = answered(request, seed)
    assert month_faults(request.model_dump(), whole) == []
    assert check_month(request, whole) == []


@pytest.mark.parametrize(("experience", "days_per_week"), EVERY_OUTPUT)
def test_no_text_of_the_output_can_break_a_rule(experience: int, days_per_week: int) -> None:
    output = output_for(experience, days_per_week)
    for lifts in DAYS[days_per_week]:
        for category in categories_of(lifts, experience):
            (names,) = (d for d in output.decisions if d.path == f"{day_name(lifts)}.{category}.0")
            exercises = {option.text for option in names.options}
            assert exercises == {e.name for e in fitting(category, lifts, experience)}
    for seed in range(50):
        values = output.sample(random.Random(seed))
        week = [slots_of(values, lifts, experience) for lifts in DAYS[days_per_week]]
        for slots in week:
            assert 3 <= len(slots) <= 4
            assert len({exercise.name for exercise, _, _ in slots}) == len(slots)
            for exercise, _, repetitions in slots:
                assert repetitions in REPETITIONS[exercise.kind]
        assert {"leg", "core"} <= {exercise.category for slots in week for exercise, _, _ in slots}


@pytest.mark.parametrize(("experience", "days_per_week"), EVERY_OUTPUT)
def test_every_text_is_in_outlines_language_of_the_json_schema(
    experience: int, days_per_week: int
) -> None:
    """The constraint also says what the schema cannot: repetitions belong to the exercise."""
    output = output_for(experience, days_per_week)
    schema = json.dumps(output.model.model_json_schema(), ensure_ascii=False)
    outlines = re.compile(to_regex(JsonSchema(schema, whitespace_pattern="")))
    ours = re.compile(output.regex)
    for seed in range(50):
        text = output.text(output.sample(random.Random(seed)))
        assert outlines.fullmatch(text) and ours.fullmatch(text)
        wrong = text.replace("[", "[ ", 1)
        assert not outlines.fullmatch(wrong) and not ours.fullmatch(wrong)


@pytest.mark.parametrize(
    ("exercise", "repetitions"), [("레그 컬", 8), ("피스톨 스쿼트", 10), ("스텝업", 4)]
)
def test_repetitions_belong_to_the_exercise(exercise: str, repetitions: int) -> None:
    output = output_for(5, 4)
    values = output.sample(random.Random(2))
    with pytest.raises(ValueError, match="not one of"):
        output.text({**values, "squat.leg.0": exercise, "squat.leg.2": repetitions})


def test_the_whole_text_fits_the_engine_at_one_token_a_byte() -> None:
    """No byte-level tokenizer, polyglot-ko's or ours, can make more tokens of it."""
    weights = dict(zip(LIFTS, (597.5, 597.5, 102.5, 102.5), strict=True))
    longest_prompt = len(TASK.question(asked(rm_weight=weights)).prompt.encode())
    answers = []
    for experience, days in EVERY_OUTPUT:
        output = output_for(experience, days)
        values = output.sample(random.Random(1))
        fixed = len(output.text(values).encode()) - len(output.decided(values).encode())
        answers.append(fixed + output.max_new_tokens)
    assert longest_prompt + max(answers) < 1200 < ENGINE_MAX_TOKENS


@pytest.mark.parametrize(
    ("bench", "stands"),
    [
        (80, ["비슷", "비슷", "비슷", "비슷"]),
        (70, ["비슷", "비슷", "비슷", "비슷"]),  # 0.875 of a mean of 0.969
        (67.5, ["뒤처짐", "비슷", "비슷", "비슷"]),
        (90, ["비슷", "비슷", "비슷", "비슷"]),  # 1.125 of 1.031
        (92.5, ["앞섬", "비슷", "비슷", "비슷"]),
        (120, ["앞섬", "뒤처짐", "뒤처짐", "뒤처짐"]),
    ],
)
def test_a_lift_stands_by_its_share_of_the_standard(bench: float, stands: list[str]) -> None:
    weights = STANDARD_KG["남성"] | {"bench_press": bench}
    request = asked(gender="남성", rm_weight=weights)
    assert list(standings(request).values()) == stands
    prompt = TASK.question(request).prompt
    assert [line.split(", ")[1] for line in prompt.splitlines() if "kg, " in line] == stands
    doubled = asked(gender="남성", rm_weight={lift: 2 * kg for lift, kg in weights.items()})
    assert standings(doubled) == standings(request)


def test_the_training_max_is_shown_where_percentages_refer_to_it() -> None:
    request = asked(basis="tm", rm_weight=dict.fromkeys(LIFTS, 102.5))
    assert answered(request)["training_max"] == dict.fromkeys(LIFTS, 92.25)
    assert answered(asked())["training_max"] is None


@pytest.mark.parametrize(
    ("rates", "warm_up"),
    [((65, 5, 10, 40), [40, 50, 60]), ((55, 10, 5, 50), [40, 50]), ((40, 5, 5, 35), [])],
)
def test_a_warm_up_is_lighter_than_the_first_set(
    rates: tuple[int, int, int, int], warm_up: list[int]
) -> None:
    (first, *_), *_, (deload, *_) = (
        week["days"] for week in answered(request_of(PUBLISHED[3], 2, rates))["weeks"]
    )
    assert [one["percent"] for one in first["lifts"][0]["warm_up"]] == warm_up
    lighter = [percent for percent in (40, 50, 60) if percent < rates[3]]
    assert [one["percent"] for one in deload["lifts"][0]["warm_up"]] == lighter


@pytest.mark.parametrize(
    ("experience", "gender", "kg", "lifts"),
    [
        (1, "남성", 225, ["벤치프레스", "스쿼트", "데드리프트", "오버헤드프레스"]),
        (1, "남성", 119, ["오버헤드프레스"]),
        (1, "여성", 60, ["벤치프레스", "오버헤드프레스"]),
        (5, "남성", 190, []),
        (4, "남성", 225, ["오버헤드프레스"]),
    ],
)
def test_weights_that_look_like_pounds_are_told(
    experience: int, gender: str, kg: float, lifts: list[str]
) -> None:
    weights = dict.fromkeys(LIFTS, kg)
    request = asked(experience=experience, gender=gender, rm_weight=weights)
    notes = answered(request)["notes"]
    assert [note.split(" ")[0] for note in notes] == lifts
    assert all(f"{kg * 0.45359237:.1f}kg" in note for note in notes)


@pytest.mark.parametrize("days", DAYS)
def test_every_lift_is_trained_once_in_every_week(days: int) -> None:
    for week in answered(asked(days_per_week=days))["weeks"]:
        assert len(week["days"]) == days
        lifts = [one["lift"] for day in week["days"] for one in day["lifts"]]
        assert sorted(lifts) == sorted(LIFTS)
        firsts = {one["sets"][0]["percent"] for day in week["days"] for one in day["lifts"]}
        assert len(firsts) == 1  # all four have their fives, triples, singles, deload at once


@pytest.mark.parametrize(
    ("rates", "field"),
    [
        ((75, 10, 5, 35), "increase_rate_week"),
        ((60, 10, 10, 35), "increase_rate_set"),
        ((70, 5, 10, 35), "increase_rate_set"),
        ((55, 10, 5, 55), "deloading_rate"),
        ((40, 10, 5, 50), "deloading_rate"),
    ],
)
def test_rates_that_cannot_be_lifted_are_refused(
    rates: tuple[int, int, int, int], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        request_of(PUBLISHED[0], 3, rates)
    (error,) = caught.value.errors()
    assert error["loc"] == ("rates", field)
    rule = "lighter than week 1" if field == "deloading_rate" else "85, 90 and 95 %"
    assert rule in error["msg"]


def _days(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [day for week in answer["weeks"] for day in week["days"]]


def _swap_lift(answer: dict[str, Any]) -> None:
    for day in _days(answer):
        day["lifts"][0]["lift"] = "bench_press"


def _set(answer: dict[str, Any], key: str, value: Any) -> None:
    _third(answer)[key] = value


def _third(answer: dict[str, Any]) -> dict[str, Any]:
    """The third set of the first day."""
    found: dict[str, Any] = _days(answer)[0]["lifts"][0]["sets"][2]
    return found


def _exercise(answer: dict[str, Any], key: str, value: Any, day: int = 0, place: int = 0) -> None:
    _days(answer)[day]["assistance"][place][key] = value


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "keys": lambda a: a.pop("basis"),
    "request": lambda a: a.update(plate_step=5.0),
    "layout": lambda a: a["weeks"].pop(),
    "training_max": lambda a: a.update(training_max=dict.fromkeys(LIFTS, 90.0)),
    "lifts": _swap_lift,
    "percent": lambda a: _set(a, "percent", 66),
    "too_heavy": lambda a: _set(a, "percent", 105),
    "warm_up": lambda a: _days(a)[0]["lifts"][0]["warm_up"].pop(),
    "kg": lambda a: _set(a, "kg", _third(a)["kg"] + 2.5),
    "plates": lambda a: _third(a)["plates"].append(1.25),
    "repetitions": lambda a: _set(a, "amrap", False),
    "assistance_count": lambda a: _days(a)[0]["assistance"].__delitem__(slice(1, None)),
    "assistance_repeats": lambda a: _days(a)[0]["assistance"].append(_days(a)[0]["assistance"][0]),
    "assistance_fits": lambda a: _exercise(a, "name", "드래곤 플래그"),
    "assistance_volume": lambda a: _exercise(a, "sets", 6),
    "assistance_gaps": lambda a: [
        day["assistance"][-2].update(category="push") for day in _days(a)
    ],
    "deload": lambda a: _exercise(a, "repetitions", 11, day=-1),
}


def test_every_rule_is_broken_by_a_test() -> None:
    assert set(BROKEN) == set(RULES)


@pytest.mark.parametrize("rule", BROKEN)
def test_the_check_names_the_rule_that_is_broken(rule: str) -> None:
    request = asked(days_per_week=4)
    right = answered(request)
    assert check_month(request, right) == []
    wrong = copy.deepcopy(right)
    BROKEN[rule](wrong)
    assert rule in check_month(request, wrong)
    if rule not in ("keys", "request", "layout"):
        assert month_faults(request.model_dump(), wrong)


def _first_lift(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The four days of the month's first lift, at four days a week."""
    first, *_ = days = _days(answer)
    return [day for day in days if day["lifts"][0]["lift"] == first["lifts"][0]["lift"]]


@pytest.mark.parametrize(
    ("sets", "repetitions", "broken"),
    [
        (2, 6, []),
        (5, 16, []),
        (1, 6, ["assistance_volume"]),
        (6, 6, ["assistance_volume"]),
        (3, 7, ["deload"]),  # nothing is half of 7
        (3, 18, ["assistance_volume"]),
        (3, 4, ["assistance_volume"]),
    ],
)
def test_the_volume_of_an_exercise_has_limits(
    sets: int, repetitions: int, broken: list[str]
) -> None:
    request = asked(days_per_week=4)
    answer = answered(request)
    for week, day in enumerate(_first_lift(answer)):
        share = 2 if week == 3 else 1
        facts = {"name": "푸시업", "muscle_groups": ["가슴", "삼두"], "equipment": "맨몸"}
        day["assistance"][0].update(facts, sets=sets, repetitions=repetitions // share)
    assert check_month(request, answer) == broken


@pytest.mark.parametrize(
    "change",
    [
        {"name": "없는 운동"},
        {"category": "core"},
        {"equipment": "밴드"},
        {"muscle_groups": ["가슴"]},
        {"name": "바벨 컬", "category": "pull", "equipment": "바벨",
         "muscle_groups": ["이두"]},  # on the day of the bench press alone
    ],
)  # fmt: skip
def test_an_exercise_is_the_catalogue_s_and_fits_the_lift(change: dict[str, Any]) -> None:
    request = asked(days_per_week=4)
    answer = answered(request)
    assert _days(answer)[0]["lifts"][0]["lift"] == "over_head_press"
    for day in _first_lift(answer):
        day["assistance"][0].update(change)
    assert check_month(request, answer) == ["assistance_fits"]


def test_five_exercises_are_too_many() -> None:
    request = asked(days_per_week=4)
    answer = answered(request)
    fitting_names = [
        e for c in CATEGORIES for e in fitting(c, ("over_head_press",), request.experience)
    ]
    for day in _first_lift(answer):
        names = {given["name"] for given in day["assistance"]}
        for exercise in (e for e in fitting_names if e.name not in names):
            if len(day["assistance"]) < 5:
                facts = {"category": exercise.category, "muscle_groups": list(exercise.muscles)}
                day["assistance"].append(
                    day["assistance"][0]
                    | facts
                    | {"name": exercise.name, "equipment": exercise.equipment}
                )
    assert check_month(request, answer) == ["assistance_count"]


def test_assistance_is_the_same_in_every_loading_week() -> None:
    request = asked(days_per_week=4)
    answer = answered(request)
    second = _first_lift(answer)[1]["assistance"][0]
    second["sets"] = 2 if second["sets"] != 2 else 3
    assert check_month(request, answer) == ["assistance_volume"]


@pytest.mark.parametrize(("week", "most"), list(enumerate((85, 90, 95, 80))))
def test_no_set_is_too_heavy_for_its_week(week: int, most: int) -> None:
    request = asked(days_per_week=4)
    for percent, is_over in ((most, False), (most + 1, True)):
        answer = answered(request)
        answer["weeks"][week]["days"][0]["lifts"][0]["sets"][2]["percent"] = percent
        assert ("too_heavy" in check_month(request, answer)) == is_over


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({}, {"kg": 66.0}),  # on no grid
        ({}, {"kg": 67.51}),
        ({}, {"kg": 67.75}),
        ({}, {"plates": [20.0, 2.5]}),  # 65 kg
        ({}, {"below_bar": True}),
        ({}, {"below_bar": True, "plates": []}),
        ({"bar": 15}, {"kg": 67.5, "plates": [20.0, 2.5, 2.5, 1.25, 1.25]}),  # one of each
        ({"rm_weight": dict.fromkeys(LIFTS, 22.5)}, {"below_bar": False}),
        ({"rm_weight": dict.fromkeys(LIFTS, 22.5)}, {"plates": [1.25]}),
        ({"rm_weight": dict.fromkeys(LIFTS, 22.5)}, {"kg": 16.5}),
    ],
)
def test_a_set_s_plates_make_its_weight(fields: dict[str, Any], change: dict[str, Any]) -> None:
    own = [{"kg": kg, "pairs": 1} for kg in (20, 10, 5, 2.5, 1.25)]
    own[0]["pairs"] = 5
    light = {"rm_weight": dict.fromkeys(LIFTS, 90), "plates": own, "rates": RATES_65}
    request = asked(**light | fields)
    answer = answered(request)
    assert check_month(request, answer) == []
    _third(answer).update(change)
    assert "plates" in check_month(request, answer)
    assert month_faults(request.model_dump(), answer)


def test_a_level_above_the_lifter_s_experience_is_caught() -> None:
    request = asked()
    whole = answered(asked(experience=5), 5)
    hard = {e["name"] for day in _days(whole) for e in day["assistance"]}
    assert any(CATALOGUE[name].level == 5 for name in hard)
    assert check_month(request, whole) == ["assistance_fits"]


def test_task_1_is_asked_first_only_where_rates_are_missing() -> None:
    assert TASK.prerequisite == "rate"
    complete = TASKS["month"].examples[0]
    assert TASK.missing(complete) is None
    bare = complete.model_copy(update={"rates": None})
    assert TASK.missing(bare) == PUBLISHED[0]
    values = complete.rates.model_dump() if complete.rates else {}
    assert TASK.complete(bare, values) == complete


def test_a_fingerprint_covers_every_output() -> None:
    assert len(TASK.outputs()) == 15
    assert {id(output) for output in TASK.outputs()} == {id(output_for(*e)) for e in EVERY_OUTPUT}
