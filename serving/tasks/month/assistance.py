"""The part of a month that the model decides: the assistance work of each training day.

A day has a slot for each of its categories (``week.categories_of``). A slot holds an exercise, its
sets and its repetitions. The exercises depend on the day's lifts and the lifter's experience, and
the repetitions on the exercise, so there is one output for each experience and number of days.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from serving.language.fields import OnlyIf
from serving.language.output import Output
from serving.tasks.month.exercises import CATALOGUE, REPETITIONS, Category, Exercise, fitting
from serving.tasks.month.week import DAYS, Lifts, categories_of, day_name

SETS = (2, 3, 4, 5)
_COUNTS = tuple(sorted({count for counts in REPETITIONS.values() for count in counts}))

Slots = Mapping[Category, tuple[str, int, int]]
"""Assistance work of one day: exercise, sets and repetitions by category."""


def _suits(repetitions: int, exercise: str) -> bool:
    return repetitions in REPETITIONS[CATALOGUE[exercise].kind]


def _slot(category: Category, lifts: Lifts, experience: int) -> Any:
    names = [exercise.name for exercise in fitting(category, lifts, experience)]
    counts = Annotated[Literal[_COUNTS], OnlyIf(_suits, "0")]  # type: ignore[valid-type]
    return tuple[Literal[*names], Literal[SETS], counts]  # type: ignore[valid-type]


@cache
def output_for(experience: int, days_per_week: int) -> Output:
    """Return the assistance output for an experience (1 to 5) and training days a week (2 to 4)."""
    config = ConfigDict(extra="forbid", frozen=True)
    days: dict[str, Any] = {}
    for lifts in DAYS[days_per_week]:
        slots: dict[str, Any] = {
            category: (_slot(category, lifts, experience), ...)
            for category in categories_of(lifts, experience)
        }
        days[day_name(lifts)] = (create_model(day_name(lifts), __config__=config, **slots), ...)
    name = f"Assistance{experience}On{days_per_week}Days"
    model: type[BaseModel] = create_model(name, __config__=config, **days)
    return Output(model)


def values_of(days: Mapping[Lifts, Slots]) -> dict[str, Any]:
    """Convert slots by day into output values."""
    return {
        f"{day_name(lifts)}.{category}.{place}": value
        for lifts, slots in days.items()
        for category, slot in slots.items()
        for place, value in enumerate(slot)
    }


def slots_of(
    values: Mapping[str, Any], lifts: Lifts, experience: int
) -> list[tuple[Exercise, int, int]]:
    """Return the exercises of a day, with sets and repetitions."""
    found = []
    for category in categories_of(lifts, experience):
        name, sets, repetitions = (
            values[f"{day_name(lifts)}.{category}.{place}"] for place in range(3)
        )
        found.append((CATALOGUE[name], sets, repetitions))
    return found
