"""The Task 2 coach: weeks that README.md's rules allow, and moved by every input as it says."""

import itertools
import json
from typing import Any

import pytest

from dataset.coaches.month import coach_month, requests
from dataset.coaches.rate import coach_rate
from dataset.profiles import ODD, USUAL, Mix
from serving.tasks.month.answer import MonthRequest
from serving.tasks.month.week import DAYS
from serving.tasks.profile import LIFTS, PUBLISHED, STANDARD_KG
from serving.tasks.registry import TASKS
from tests.kit.oracle_week import OWN, week_faults

LIGHT, HEAVY = (55, 10, 5, 50), (65, 5, 10, 40)
TASK = TASKS["month"]
Exercises = list[dict[str, Any]]


def request(
    experience: int = 3,
    purpose: int = 2,
    days: int = 4,
    rates: tuple[int, int, int, int] = LIGHT,
    weights: dict[str, float] | None = None,
) -> MonthRequest:
    """Build a request; all lifts are at the standard but those in ``weights``."""
    names = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
    fields: dict[str, Any] = {
        "experience": experience,
        "purpose": purpose,
        "days_per_week": days,
        "rates": dict(zip(names, rates, strict=True)),
        "rm_weight": STANDARD_KG["남성"] | (weights or {}),
    }
    return MonthRequest.model_validate(PUBLISHED[0].model_dump() | fields)


def first_week(asked: MonthRequest) -> dict[str, Exercises]:
    """Return the assistance of each day of the first week, by the day's lifts."""
    answer = json.loads(TASK.render(asked, coach_month(asked)))
    assert week_faults(asked.model_dump(), answer) == []
    return {
        " ".join(one["lift"] for one in day["lifts"]): day["assistance"]
        for day in answer["weeks"][0]["days"]
    }


def sets_of(exercises: Exercises) -> dict[str, int]:
    return {one["category"]: one["sets"] for one in exercises}


EVERYONE = [
    request(*one) for one in itertools.product(range(1, 6), range(1, 7), DAYS, (LIGHT, HEAVY))
]


@pytest.mark.parametrize("mix", [USUAL, ODD])
def test_two_thousand_weeks_are_legal_and_a_coach_would_sign_them(mix: Mix) -> None:
    for asked in itertools.islice(requests(20_001, mix), 2000):
        values = coach_month(asked)
        answer = json.loads(TASK.render(asked, values))
        assert TASK.check(asked, answer) == []
        assert week_faults(asked.model_dump(), answer) == []
        output = TASK.question(asked).output
        assert output.parse(output.text(values)) == values


def test_experience_steers_difficulty_and_the_work_of_a_day() -> None:
    from serving.tasks.month.exercises import CATALOGUE

    sets, levels = [], []
    for experience in range(1, 6):
        names = [one for day in first_week(request(experience)).values() for one in day]
        sets.append(sum(one["sets"] for one in names))
        levels.append(sum(CATALOGUE[one["name"]].level for one in names) / len(names))
    assert sets == sorted(sets) and sets[0] < sets[-1]
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] > 4


def test_a_purpose_shows_in_repetitions_and_exercises() -> None:
    def mean_repetitions(purpose: int) -> float:
        counts: list[int] = [
            one["repetitions"]
            for day in first_week(request(purpose=purpose)).values()
            for one in day
        ]
        return sum(counts) / len(counts)

    records, strength, size, fat_loss = map(mean_repetitions, (6, 1, 2, 3))
    assert records < strength < size < fat_loss
    for experience, days in itertools.product(range(2, 6), DAYS):
        plans = [
            {
                (lifts, one["name"], one["repetitions"])
                for lifts, day in first_week(request(experience, purpose, days)).items()
                for one in day
            }
            for purpose in range(1, 7)
        ]
        for plan, other in itertools.combinations(plans, 2):
            assert len(plan & other) <= 0.65 * len(plan)


@pytest.mark.parametrize("experience", range(1, 6))
def test_a_day_has_the_same_work_on_two_three_and_four_days(experience: int) -> None:
    work = [
        3 * len(lifts.split()) + sum(sets_of(day).values())
        for days in DAYS
        for lifts, day in first_week(request(experience, days=days)).items()
    ]
    assert max(work) - min(work) <= 1


def test_a_heavy_month_leaves_one_set_less() -> None:
    light, heavy = first_week(request(rates=LIGHT)), first_week(request(rates=HEAVY))
    for lifts, day in light.items():
        assert [one["name"] for one in day] == [one["name"] for one in heavy[lifts]]
        assert sum(sets_of(heavy[lifts]).values()) == sum(sets_of(day).values()) - 1


@pytest.mark.parametrize("lift", LIFTS)
def test_a_lift_that_lags_gets_help_and_one_ahead_gets_less(lift: str) -> None:
    standard = STANDARD_KG["남성"][lift]
    for experience, days in itertools.product(range(1, 6), DAYS):
        even, behind, ahead = (
            next(
                day
                for lifts, day in first_week(
                    request(experience, 2, days, weights={lift: share * standard})
                ).items()
                if lift in lifts.split()
            )
            for share in (1, 0.8, 1.25)
        )
        own = OWN[lift]
        assert sets_of(behind)[own] == sets_of(even)[own] + 1
        assert sets_of(ahead)[own] <= sets_of(even)[own]
        others = {"leg", "core"} - {own}
        assert all(sets_of(behind).get(o) == sets_of(even).get(o) for o in others)


def test_the_same_request_has_the_same_answer_and_ties_fall_differently() -> None:
    assert coach_month(request()) == coach_month(request())
    names = {first_week(request(purpose=p))["bench_press"][0]["name"] for p in range(1, 7)}
    assert len(names) > 2


def test_the_coaches_work_on_each_other_s_answers() -> None:
    for profile in PUBLISHED:
        fields = profile.model_dump() | {"days_per_week": 3, "rates": coach_rate(profile)}
        assert coach_month(MonthRequest.model_validate(fields))
