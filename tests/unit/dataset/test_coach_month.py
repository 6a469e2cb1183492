"""The Task 2 coach: legal for everyone, and moved by every input the way README.md says."""

import itertools
from typing import Any

import pytest

from dataset.coaches.month import coach_month
from dataset.coaches.rate import coach_rate
from serving.tasks.month.answer import MonthRequest
from serving.tasks.month.assistance import output_for, slots_of
from serving.tasks.month.exercises import LOWER, UPPER, Exercise
from serving.tasks.profile import LIFTS, PUBLISHED

LIGHT, HEAVY = (55, 10, 5, 50), (65, 5, 10, 40)
Slots = list[tuple[Exercise, int, int]]


def request(
    experience: int = 3,
    purpose: int = 2,
    days: int = 3,
    rates: tuple[int, int, int, int] = LIGHT,
) -> MonthRequest:
    names = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
    fields: dict[str, Any] = {
        "experience": experience,
        "purpose": purpose,
        "days_per_week": days,
        "rates": dict(zip(names, rates, strict=True)),
    }
    return MonthRequest.model_validate(PUBLISHED[0].model_dump() | fields)


def days(asked: MonthRequest) -> dict[str, Slots]:
    values = coach_month(asked)
    return {lift: slots_of(values, lift) for lift in LIFTS}


EVERYONE = [
    request(e, p, d, rates)
    for e, p, d, rates in itertools.product(
        range(1, 6), range(1, 7), (2, 3, 4), (LIGHT, HEAVY, (65, 5, 10, 35), (40, 5, 5, 45))
    )
]


def test_every_answer_of_the_coach_is_legal() -> None:
    for asked in EVERYONE:
        output, values = output_for(asked.experience), coach_month(asked)
        assert output.parse(output.text(values)) == values


def test_push_and_pull_are_balanced_over_the_week() -> None:
    """The main lifts of two days push, so pulling has at least as many sets, and more on them."""
    for asked in EVERYONE:
        for lift, slots in days(asked).items():
            sets = {exercise.category: count for exercise, count, _ in slots}
            assert sets["pull"] >= sets["push"]
            if lift in UPPER and sets["push"] < 5:
                assert sets["pull"] > sets["push"]


def test_experience_steers_difficulty_and_count() -> None:
    counts, levels = [], []
    for experience in range(1, 6):
        slots = [slot for day in days(request(experience)).values() for slot in day]
        counts.append(len(slots))
        levels.append(sum(exercise.level for exercise, _, _ in slots) / len(slots))
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] > 4


def test_purpose_steers_volume_and_repetition_range() -> None:
    def mean_repetitions(purpose: int) -> float:
        slots = [slot for day in days(request(purpose=purpose)).values() for slot in day]
        return sum(repetitions for _, _, repetitions in slots) / len(slots)

    records, strength, size, fat_loss = map(mean_repetitions, (6, 1, 2, 3))
    assert records < strength < size < fat_loss


def test_the_main_lift_steers_muscle_groups() -> None:
    for asked in EVERYONE:
        for lift, slots in days(asked).items():
            assert all(lift in exercise.lifts for exercise, _, _ in slots)
            if len(slots) == 3:
                third = "core" if lift in LOWER else "leg"
                assert [exercise.category for exercise, _, _ in slots][-1] == third


@pytest.mark.parametrize("experience", [2, 3])
def test_fewer_days_a_week_make_longer_days(experience: int) -> None:
    counts = [len(days(request(experience, 2, d))["squat"]) for d in (2, 3, 4)]
    assert counts == [4, 3, 2]


def test_a_heavy_month_leaves_less_for_assistance() -> None:
    light, heavy = days(request(rates=LIGHT)), days(request(rates=HEAVY))
    for lift in LIFTS:
        for (one, sets, _), (other, fewer, _) in zip(light[lift], heavy[lift], strict=True):
            assert one == other
            assert fewer == sets - 1


def test_the_same_request_has_the_same_answer_and_ties_fall_differently() -> None:
    assert coach_month(request()) == coach_month(request())
    names = {days(request(purpose=p))["bench_press"][0][0].name for p in range(1, 7)}
    assert len(names) > 2


def test_the_coaches_work_on_each_other_s_answers() -> None:
    for profile in PUBLISHED:
        fields = profile.model_dump() | {"days_per_week": 3, "rates": coach_rate(profile)}
        assert coach_month(MonthRequest.model_validate(fields))
