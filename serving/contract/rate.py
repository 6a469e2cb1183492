"""Task 1, ``rate``: a month's progression in the 5/3/1 programme.

The model decides four rates. The plan follows from them by arithmetic:
``percent = init + week_rate * (w - 1) + set_rate * (s - 1)`` for weeks 1 to 3, and
``deload + set_rate * (s - 1)`` for week 4, never over 100.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.contract.output import Output
from serving.contract.pieces import Derived, OnlyIf
from serving.contract.profile import Profile
from serving.contract.prompt import question

PROGRAM = "5/3/1 프로그램"
MAX_PERCENT = 100
SETS, LOADING_WEEKS = 3, 3
SMALLEST_INCREASE = 5
REPETITIONS = (("5", "5", "5+"), ("3", "3", "3+"), ("5", "3", "1+"), ("5", "5", "5"))
"""Repetitions by week and set; ``+`` means as many as possible."""


def top_percent(init: int, week: int, set_: int) -> int:
    """The heaviest set of the month (week 3, set 3) in percent."""
    return init + week * (LOADING_WEEKS - 1) + set_ * (SETS - 1)


def week_fits(week: int, init: int) -> bool:
    return top_percent(init, week, SMALLEST_INCREASE) <= MAX_PERCENT


def set_fits(set_: int, init: int, week: int) -> bool:
    return top_percent(init, week, set_) <= MAX_PERCENT


def plan_text(init: int, week: int, set_: int, deload: int) -> str:
    """The four-week plan in the words the first version used."""
    starts = [init + week * w for w in range(LOADING_WEEKS)] + [deload]
    weeks = []
    for number, (start, repetitions) in enumerate(zip(starts, REPETITIONS, strict=True), 1):
        lines = [f"Week{number}"]
        for s, count in enumerate(repetitions):
            lines.append(f"SET{s + 1} {start + set_ * s}%x{count}")
        weeks.append("\n".join(lines))
    return "\n\n".join(weeks) + "\n"


class RateAnswer(BaseModel):
    """A month's progression: four rates in percent of 1RM, and the plan they give."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    program: Literal["5/3/1 프로그램"] = Field(description="프로그램 이름")
    init_weight_rate: Literal[40, 45, 50, 55, 60, 65, 70, 75] = Field(
        description="1주차 1세트의 강도 (1RM의 %)"
    )
    increase_rate_week: Annotated[Literal[5, 10], OnlyIf(week_fits, "init_weight_rate")] = Field(
        description="주마다 더하는 강도 (%p)"
    )
    increase_rate_set: Annotated[
        Literal[5, 10], OnlyIf(set_fits, "init_weight_rate", "increase_rate_week")
    ] = Field(description="세트마다 더하는 강도 (%p)")
    deloading_rate: Literal[35, 40, 45, 50, 55] = Field(
        description="4주차(디로딩) 1세트의 강도 (1RM의 %)"
    )
    weekly_weight_increase_plan: Annotated[
        str,
        Derived(
            plan_text,
            "init_weight_rate",
            "increase_rate_week",
            "increase_rate_set",
            "deloading_rate",
        ),
    ] = Field(description="4주 계획: 주차별 세트의 강도와 반복 횟수 (+는 최대 반복)")


OUTPUT = Output(RateAnswer)


def prompt(profile: Profile) -> str:
    """The question a model is asked for a month's progression."""
    return question(PROGRAM, profile)
