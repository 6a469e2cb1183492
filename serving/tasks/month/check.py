"""The semantic check that every Task 2 answer must pass before it is sent.

It recomputes every day from the request and its rates, and compares exercises with the shared
catalogue. It deliberately shares no code with ``answer.render``, so that it can detect its errors.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from serving.tasks.month.answer import (
    AssistanceExercise,
    Day,
    LiftSet,
    MainLift,
    MonthAnswer,
    MonthRequest,
    Week,
)
from serving.tasks.month.exercises import CATALOGUE

RULES = (
    "keys", "request", "layout", "training_max", "lifts", "warm_up", "percent", "too_heavy",
    "kg", "plates", "repetitions", "assistance_count", "assistance_fits", "assistance_repeats",
    "assistance_volume", "assistance_gaps", "deload",
)  # fmt: skip
"""All rules that the check can report."""
_REPETITIONS = {1: "5 5 5+", 2: "3 3 3+", 3: "5 3 1+", 4: "5 5 5"}
_WARM_UP = [(40, "5"), (50, "5"), (60, "3")]
_DELOAD = 4
_MAX_PERCENT = {1: 85, 2: 90, 3: 95, _DELOAD: 80}
"""Of a week's sets. A deload is at most 80 %: lighter than a week 1 of 85 %."""
_TOLERANCE_KG = 1e-6
_LIFTS = {
    2: "squat bench_press, dead_lift over_head_press",
    3: "squat, bench_press over_head_press, dead_lift",
    4: "over_head_press, dead_lift, bench_press, squat",
}
"""Of each day, by days a week."""
_REPETITION_RANGES = {"skill": (4, 8), "compound": (6, 16), "isolation": (10, 20)}

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
    echoed = ("days_per_week", "basis", "plate_step", "bar", "rates")
    if any(getattr(month, name) != getattr(request, name) for name in echoed):
        return ["request"]
    found = [(week.week, len(week.days), week.deload) for week in month.weeks]
    if found != [(n, request.days_per_week, n == _DELOAD) for n in (1, 2, 3, 4)]:
        return ["layout"]
    broken: Broken = set()
    _check_training_max(request, month, broken)
    first = month.weeks[0]
    for week in month.weeks:
        _check_week(request, week, broken)
        for day, usual in zip(week.days, first.days, strict=True):
            for one in day.lifts:
                _check_sets(request, week.week, one, broken)
            if week.deload:
                _check_deload(usual.assistance, day.assistance, broken)
                continue
            _check_assistance(request, day, broken)
            if day.assistance != usual.assistance:
                broken.add("assistance_volume")
    return sorted(broken)


def _check_training_max(request: MonthRequest, month: MonthAnswer, broken: Broken) -> None:
    given = month.training_max.model_dump() if month.training_max else {}
    one_rms = request.rm_weight.model_dump() if request.basis == "tm" else {}
    off_kg = [abs(given.get(lift, 0) - 0.9 * kg) for lift, kg in one_rms.items()]
    if given.keys() != one_rms.keys() or max(off_kg, default=0) > _TOLERANCE_KG:
        broken.add("training_max")


def _check_week(request: MonthRequest, week: Week, broken: Broken) -> None:
    """Check that a week has every lift on its day, and leg and core work."""
    lifts = ", ".join(" ".join(one.lift for one in day.lifts) for day in week.days)
    if lifts != _LIFTS[request.days_per_week] or [d.day for d in week.days] != [
        *range(1, len(week.days) + 1)
    ]:
        broken.add("lifts")
    if not {"leg", "core"} <= {one.category for day in week.days for one in day.assistance}:
        broken.add("assistance_gaps")


def _check_sets(request: MonthRequest, week: int, main: MainLift, broken: Broken) -> None:
    rates = request.rates
    assert rates
    if " ".join(map(_count, main.sets)) != _REPETITIONS[week]:
        broken.add("repetitions")
    first = rates.init_weight_rate + rates.increase_rate_week * (week - 1)
    if week == _DELOAD:
        first = rates.deloading_rate
    for place, one in enumerate(main.sets):
        if one.percent != first + rates.increase_rate_set * place:
            broken.add("percent")
        if one.percent > _MAX_PERCENT[week]:
            broken.add("too_heavy")
    warm_up = [(one.percent, _count(one)) for one in main.warm_up]
    if warm_up != [(percent, count) for percent, count in _WARM_UP if percent < first]:
        broken.add("warm_up")
    basis_kg = getattr(request.rm_weight, main.lift) * (0.9 if request.basis == "tm" else 1)
    for one in main.warm_up + main.sets:
        if abs(one.kg - basis_kg * one.percent / 100) > request.plate_step / 2 + _TOLERANCE_KG:
            broken.add("kg")
        _check_plates(request, one, broken)


def _count(one: LiftSet) -> str:
    return f"{one.repetitions}{'+' * one.amrap}"


def _check_plates(request: MonthRequest, one: LiftSet, broken: Broken) -> None:
    """Check that a set's plates are at hand and make its weight; or that no plates could, and the
    weight is on the grid below the bar."""
    if one.below_bar:
        steps = (request.bar - one.kg) / request.plate_step
        is_right = one.kg > 0 and steps >= 1 and steps == int(steps) and not one.plates
    else:
        used = Counter(one.plates)
        own = {plate.kg: plate.pairs for plate in request.plates or ()}
        at_hand = not own or all(own.get(kg, 0) >= pairs for kg, pairs in used.items())
        on_step = bool(own) or (one.kg - request.bar) % request.plate_step == 0
        is_right = at_hand and on_step and one.kg == request.bar + 2 * sum(one.plates)
    if not is_right:
        broken.add("plates")


def _check_assistance(request: MonthRequest, day: Day, broken: Broken) -> None:
    names = [exercise.name for exercise in day.assistance]
    lifts = {main.lift for main in day.lifts}
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
            or not (lifts <= set(known.lifts) or lifts & set(known.builds))
            or known.level > request.experience
        ):
            broken.add("assistance_fits")
            continue
        least, most = _REPETITION_RANGES[known.kind]
        if not (2 <= given.sets <= 5 and least <= given.repetitions <= most):
            broken.add("assistance_volume")


def _check_deload(
    usual: list[AssistanceExercise], deload: list[AssistanceExercise], broken: Broken
) -> None:
    """Check that each exercise has half the volume of the same day in week 1."""
    same = [exercise.name for exercise in usual] == [exercise.name for exercise in deload]
    halved = same and all(
        2 * now.sets * now.repetitions == before.sets * before.repetitions
        for before, now in zip(usual, deload, strict=True)
    )
    if not halved:
        broken.add("deload")
