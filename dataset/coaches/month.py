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
from serving.tasks.month.assistance import SETS, values_of
from serving.tasks.month.exercises import Category, Exercise, Kind, fitting
from serving.tasks.month.week import DAYS, OWN, Lifts, categories_of
from serving.tasks.profile import AHEAD, BEHIND, standings
from serving.tasks.rate.answer import OUTPUT
from serving.tasks.rate.answer import SETS as MAIN_SETS

SEED = 531

DAY_SETS = {1: 13, 2: 14, 3: 15, 4: 16, 5: 17}
"""Sets of a day by experience, those of the main lifts included."""
HEAVY_PERCENT = 90
"""If the month's heaviest set reaches this percentage, a day has one set less."""
REPETITIONS: dict[Kind, dict[int, int]] = {
    "skill": {1: 4, 2: 6, 3: 8, 4: 8, 5: 6, 6: 4},
    "compound": {1: 8, 2: 10, 3: 16, 4: 12, 5: 12, 6: 6},
    "isolation": {1: 12, 2: 12, 3: 20, 4: 16, 5: 16, 6: 10},
}
"""Repetitions a set, by kind of exercise and purpose."""
NOVICE_REPETITIONS = 10
EQUIPMENT = {
    1: {"바벨", "중량 벨트"},
    2: {"덤벨", "케이블"},
    3: {"맨몸", "덤벨"},
    4: {"맨몸"},
    5: {"머신", "케이블"},
    6: {"바벨"},
}
"""Preferred equipment, by purpose."""


def coach_month(request: MonthRequest) -> dict[str, Any]:
    """Return each day's assistance for ``request``, as values of its output.

    Args:
        request: the request; its rates must be set.
    """
    stands = standings(request)
    days = {}
    for number, lifts in enumerate(DAYS[request.days_per_week]):
        sets = _sets(request, lifts, stands)
        slots: dict[Category, tuple[str, int, int]] = {}
        for category, count in sets.items():
            exercise = _exercise(request, number, lifts, category, stands)
            slots[category] = (exercise.name, count, _repetitions(request, exercise))
        days[lifts] = slots
    return values_of(days)


def _sets(request: MonthRequest, lifts: Lifts, stands: dict[str, str]) -> dict[Category, int]:
    """Return sets by category: the day's, spread evenly, the pull and the lifts' own first."""
    assert request.rates, "Task 1 comes first"
    categories = categories_of(lifts, request.experience)
    total = DAY_SETS[request.experience] - (request.rates.top >= HEAVY_PERCENT)
    total = max(total - MAIN_SETS * len(lifts), SETS[0] * len(categories))
    each, more = divmod(total, len(categories))
    own = [OWN[lift] for lift in lifts]
    first = sorted(categories, key=lambda one: (one != "pull", one not in own))[:more]
    sets = {category: each + (category in first) for category in categories}
    for category in set(own):
        found = {stands[lift] for lift in lifts if OWN[lift] == category}
        sets[category] += (BEHIND in found) - (found == {AHEAD} and sets[category] > SETS[0])
    return sets | {"pull": max(sets["pull"], sets.get("push", 0))}


def _exercise(
    request: MonthRequest, day: int, lifts: Lifts, category: Category, stands: dict[str, str]
) -> Exercise:
    known = fitting(category, lifts, request.experience)
    weak = {lift for lift in lifts if OWN[lift] == category and stands[lift] == BEHIND}
    if weak:
        builders = [one for one in known if weak <= set(one.builds)] or [
            one for one in known if weak & set(one.builds)
        ]
        return max(builders, key=lambda one: one.level)
    hardest = max(exercise.level for exercise in known)
    least = min(request.experience - 1, hardest)
    near = [exercise for exercise in known if exercise.level >= least]
    preferred = [one for one in near if one.equipment in EQUIPMENT[request.purpose]] or near
    random.Random(f"{SEED}/{category}/{request.experience}/{request.purpose}").shuffle(preferred)
    return preferred[day % len(preferred)]


def _repetitions(request: MonthRequest, exercise: Exercise) -> int:
    count = REPETITIONS[exercise.kind][request.purpose]
    return max(count, NOVICE_REPETITIONS) if request.experience == 1 else count


SHARE_COACHED = 0.5
"""Share of requests with the Task 1 coach's rates; the rest get random legal rates."""


def requests(seed: int, mix: Mix = USUAL) -> Iterator[MonthRequest]:
    """Yield requests over the whole input space, deterministic for a given seed."""
    rng = random.Random(seed)
    legal = list(OUTPUT.enumerate())
    for profile in profiles(seed, mix):
        coached = rng.random() < SHARE_COACHED
        rates = coach_rate(profile) if coached else rng.choice(legal)
        days = rng.choice(list(DAYS))
        yield MonthRequest.model_validate(
            {**profile.model_dump(), "days_per_week": days, "rates": rates}
        )


SOURCE = Source(
    requests=requests,
    coach=coach_month,
    rows={"train": 16_000, "validation": 1_000, "test": 2_000, "odd": 2_000},
    form_rows=8_000,
    held_out="answer",
)
