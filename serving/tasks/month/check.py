"""The semantic check that every Task 2 answer must pass before it is sent.

It recomputes every day from the request and its rates, and compares exercises with the shared
catalogue. It deliberately shares no code with ``answer.render``, so that it can detect its errors.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from serving.tasks.month.answer import AssistanceExercise, Day, MonthAnswer, MonthRequest, Week
from serving.tasks.month.exercises import CATALOGUE

RULES = (
    "keys", "request", "layout", "rotation", "percent", "over_100", "kg", "repetitions",
    "assistance_count", "assistance_fits", "assistance_repeats", "assistance_volume", "deload",
)  # fmt: skip
"""All rules that the check can report."""
_REPETITIONS = {1: "5 5 5+", 2: "3 3 3+", 3: "5 3 1+", 4: "5 5 5"}
_DELOAD = 4
_TOLERANCE_KG = 1e-6

Broken = set[str]


def check_month(request: MonthRequest, answer: Mapping[str, Any]) -> list[str]:
    """Return the names of the rules that ``answer`` violates; empty if it is valid.

    Args:
        request: the answered request, including its rates.
        answer: a Task 2 answer, parsed from JSON.

    Returns:
        A subset of ``RULES``.
    """
    try:
        month = MonthAnswer.model_validate(answer)
    except ValidationError:
        return ["keys"]
    echoed = (month.days_per_week, month.basis, month.plate_step, month.rates)
    if echoed != (request.days_per_week, request.basis, request.plate_step, request.rates):
        return ["request"]
    found = [(week.week, len(week.days), week.deload) for week in month.weeks]
    if found != [(n, request.days_per_week, n == _DELOAD) for n in (1, 2, 3, 4)]:
        return ["layout"]
    broken: Broken = set()
    _check_rotation(month.weeks, broken)
    usual: dict[str, list[AssistanceExercise]] = {}
    for week in month.weeks:
        for day in week.days:
            _check_sets(request, week.week, day, broken)
            _check_assistance(request, day, broken)
            if week.deload:
                _check_deload(usual.get(day.lift, []), day.assistance, broken)
            elif usual.setdefault(day.lift, day.assistance) != day.assistance:
                broken.add("assistance_volume")
    return sorted(broken)


def _check_rotation(weeks: list[Week], broken: Broken) -> None:
    """Check that any two consecutive weeks include all four lifts."""
    for one, other in pairwise(weeks):
        if len({day.lift for day in one.days + other.days}) != 4:
            broken.add("rotation")


def _check_sets(request: MonthRequest, week: int, day: Day, broken: Broken) -> None:
    rates = request.rates
    assert rates
    counts = " ".join(f"{one.repetitions}{'+' * one.amrap}" for one in day.sets)
    if counts != _REPETITIONS[week]:
        broken.add("repetitions")
    first = rates.init_weight_rate + rates.increase_rate_week * (week - 1)
    if week == _DELOAD:
        first = rates.deloading_rate
    basis_kg = getattr(request.rm_weight, day.lift) * (0.9 if request.basis == "tm" else 1)
    for place, one in enumerate(day.sets):
        if one.percent != first + rates.increase_rate_set * place:
            broken.add("percent")
        if one.percent > 100:
            broken.add("over_100")
        steps = one.kg / request.plate_step
        off_kg = abs(one.kg - basis_kg * one.percent / 100)
        on_step = abs(steps - round(steps)) * request.plate_step <= _TOLERANCE_KG
        if not on_step or off_kg > request.plate_step / 2 + _TOLERANCE_KG:
            broken.add("kg")


def _check_assistance(request: MonthRequest, day: Day, broken: Broken) -> None:
    names = [exercise.name for exercise in day.assistance]
    if not 2 <= len(names) <= 4:
        broken.add("assistance_count")
    if len(set(names)) != len(names):
        broken.add("assistance_repeats")
    for given in day.assistance:
        known = CATALOGUE.get(given.name)
        facts = (given.category, given.muscle_groups, given.equipment)
        if (
            not known
            or facts != (known.category, list(known.muscles), known.equipment)
            or day.lift not in known.lifts
            or known.level > request.experience
        ):
            broken.add("assistance_fits")
        if not (1 <= given.sets <= 5 and 3 <= given.repetitions <= 20):
            broken.add("assistance_volume")


def _check_deload(
    usual: list[AssistanceExercise], deload: list[AssistanceExercise], broken: Broken
) -> None:
    """Check that each exercise has half the volume of the lift's earlier days in the month."""
    same = [exercise.name for exercise in usual] == [exercise.name for exercise in deload]
    halved = same and all(
        2 * now.sets * now.repetitions == before.sets * before.repetitions
        for before, now in zip(usual, deload, strict=True)
    )
    if not halved:
        broken.add("deload")
