"""The part of a month that the model decides: assistance work per lift.

Each main lift has four slots: push, pull, leg and core. A slot holds an exercise, its sets and its
repetitions. Leg and core may be empty, so a day has two to four exercises. The allowed exercises
depend on the lift and the lifter's experience, so there is one output per experience level.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from serving.language.fields import OnlyIf
from serving.language.output import Output
from serving.tasks.month.exercises import CATALOGUE, CATEGORIES, Category, Exercise, fitting
from serving.tasks.profile import LIFTS

NONE = "없음"
"""Marks an empty slot; its sets and repetitions are 0."""
MAY_BE_EMPTY: tuple[Category, ...] = ("leg", "core")
SETS = (2, 3, 4, 5)
REPETITIONS = (6, 8, 10, 12, 16, 20)
"""Even numbers, so that the deload can halve them."""

Slots = Mapping[Category, tuple[str, int, int]]
"""Assistance work of one lift: exercise or ``NONE``, sets and repetitions by category."""


def _is_zero_for_none(count: int, exercise: str) -> bool:
    return (count == 0) == (exercise == NONE)


def _slot(category: Category, lift: str, experience: int) -> Any:
    names = [exercise.name for exercise in fitting(category, lift, experience)]
    if category not in MAY_BE_EMPTY:
        return tuple[Literal[*names], Literal[SETS], Literal[REPETITIONS]]  # type: ignore[valid-type]
    rule = OnlyIf(_is_zero_for_none, "0")
    return tuple[
        Literal[NONE, *names],  # type: ignore[valid-type]
        Annotated[Literal[0, *SETS], rule],  # type: ignore[valid-type]
        Annotated[Literal[0, *REPETITIONS], rule],  # type: ignore[valid-type]
    ]


@cache
def output_for(experience: int) -> Output:
    """Return the assistance output for an experience level (1 to 5)."""
    config = ConfigDict(extra="forbid", frozen=True)
    days: dict[str, Any] = {}
    for lift in LIFTS:
        slots: dict[str, Any] = {c: (_slot(c, lift, experience), ...) for c in CATEGORIES}
        days[lift] = (create_model(f"{lift}_day", __config__=config, **slots), ...)
    model: type[BaseModel] = create_model(f"Assistance{experience}", __config__=config, **days)
    return Output(model)


def values_of(days: Mapping[str, Slots]) -> dict[str, Any]:
    """Convert slots by lift into output values; a missing category becomes an empty slot."""
    empty = (NONE, 0, 0)
    return {
        f"{lift}.{category}.{place}": value
        for lift, slots in days.items()
        for category in CATEGORIES
        for place, value in enumerate(slots.get(category, empty))
    }


def slots_of(values: Mapping[str, Any], lift: str) -> list[tuple[Exercise, int, int]]:
    """Return the exercises for ``lift`` with sets and repetitions, without empty slots."""
    found = []
    for category in CATEGORIES:
        name, sets, repetitions = (values[f"{lift}.{category}.{place}"] for place in range(3))
        if name != NONE:
            found.append((CATALOGUE[name], sets, repetitions))
    return found
