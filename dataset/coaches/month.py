"""Coach policy for Task 2: selects a lifter's assistance work. See README.md for the reasons.

Only this module defines the correct assistance for a request. Serving does not import it; the
adapter decides there.
"""

import random
from collections.abc import Iterator
from typing import Any

from dataset.coaches import Source
from dataset.coaches.rate import coach_rate
from dataset.profiles import USUAL, Mix, profiles
from serving.tasks.month.answer import MonthRequest
from serving.tasks.month.assistance import REPETITIONS, SETS, Slots, values_of
from serving.tasks.month.exercises import CATEGORIES, LOWER, UPPER, Category, Exercise, fitting
from serving.tasks.profile import LIFTS
from serving.tasks.rate.answer import OUTPUT, top_percent

SEED = 531

COUNT = {1: 2, 2: 3, 3: 3, 4: 4, 5: 4}
"""Exercises per day by experience, when training ``USUAL_DAYS`` days a week."""
USUAL_DAYS = 3
BASE_SETS = {1: 4, 2: 4, 3: 3, 4: 3, 5: 3, 6: 3}
"""Sets per exercise, by purpose."""
BASE_REPETITIONS = {1: 8, 2: 10, 3: 16, 4: 12, 5: 12, 6: 6}
"""Repetitions per set, by purpose."""
NOVICE_REPETITIONS = 10
HEAVY_PERCENT = 95
"""If the month's heaviest set reaches this percentage, assistance loses one set."""
EQUIPMENT = {
    1: {"바벨"},
    2: {"덤벨", "케이블"},
    3: {"맨몸", "덤벨"},
    4: {"맨몸"},
    5: {"머신", "케이블"},
    6: {"바벨"},
}
"""Preferred equipment, by purpose."""


def coach_month(request: MonthRequest) -> dict[str, Any]:
    """Return each lift's assistance for ``request``, as values of its output.

    Args:
        request: the request; its rates must be set.
    """
    return values_of({lift: _slots(request, lift) for lift in LIFTS})


def _slots(request: MonthRequest, lift: str) -> Slots:
    slots: dict[Category, tuple[str, int, int]] = {}
    for category in _categories(request, lift):
        exercise = _exercise(request, lift, category)
        sets, repetitions = _sets(request, lift, category), _repetitions(request, exercise)
        slots[category] = (exercise.name, sets, repetitions)
    return slots


def _categories(request: MonthRequest, lift: str) -> tuple[Category, ...]:
    count = COUNT[request.experience] + USUAL_DAYS - request.days_per_week
    count += (request.purpose == 3) - (request.purpose == 6)
    third: Category = "core" if lift in LOWER else "leg"
    chosen = {2: ("push", "pull"), 3: ("push", "pull", third), 4: CATEGORIES}
    wanted = chosen[min(max(count, 2), 4)]
    return tuple(category for category in CATEGORIES if category in wanted)


def _exercise(request: MonthRequest, lift: str, category: Category) -> Exercise:
    known = fitting(category, lift, request.experience)
    hardest = max(exercise.level for exercise in known)
    least = min(request.experience - 1, hardest)
    near = [exercise for exercise in known if exercise.level >= least]
    preferred = [e for e in near if e.equipment in EQUIPMENT[request.purpose]] or near
    seed = f"{SEED}/{lift}/{category}/{request.experience}/{request.purpose}"
    return random.Random(seed).choice(preferred)


def _sets(request: MonthRequest, lift: str, category: Category) -> int:
    rates = request.rates
    assert rates, "Task 1 comes first"
    top = top_percent(rates.init_weight_rate, rates.increase_rate_week, rates.increase_rate_set)
    sets = BASE_SETS[request.purpose] + (request.experience >= 4) - (top >= HEAVY_PERCENT)
    sets += category == "pull" and lift in UPPER
    return min(max(sets, SETS[0]), SETS[-1])


def _repetitions(request: MonthRequest, exercise: Exercise) -> int:
    base = BASE_REPETITIONS[request.purpose]
    if request.experience == 1:
        base = max(base, NOVICE_REPETITIONS)
    steps = (len(exercise.muscles) == 1) + (exercise.category == "core")
    return REPETITIONS[min(REPETITIONS.index(base) + steps, len(REPETITIONS) - 1)]


SHARE_COACHED = 0.5
"""Share of requests with the Task 1 coach's rates; the rest get random legal rates."""


def requests(seed: int, mix: Mix = USUAL) -> Iterator[MonthRequest]:
    """Yield requests over the whole input space, deterministic for a given seed."""
    rng = random.Random(seed)
    legal = list(OUTPUT.enumerate())
    for profile in profiles(seed, mix):
        coached = rng.random() < SHARE_COACHED
        rates = coach_rate(profile) if coached else rng.choice(legal)
        days = rng.choice((2, 3, 4))
        yield MonthRequest.model_validate(
            {**profile.model_dump(), "days_per_week": days, "rates": rates}
        )


SOURCE = Source(
    requests=requests,
    coach=coach_month,
    rows={"train": 7_000, "validation": 800, "test": 800, "odd": 800},
    form_rows=7_000,
)
