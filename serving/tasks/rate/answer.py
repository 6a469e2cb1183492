"""Task 1, ``rate``: the progression for one month of the 5/3/1 program.

The model decides four rates. The plan is computed from them:
``percent = init + week_rate * (w - 1) + set_rate * (s - 1)`` for weeks 1 to 3, and
``deload + set_rate * (s - 1)`` for week 4. Only rates whose sets can be lifted are in the language:
see ``MAX_LAST_PERCENT`` and ``is_rest``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from serving.language.fields import Derived, OnlyIf
from serving.language.output import Output

PROGRAM = "5/3/1 프로그램"
SETS, LOADING_WEEKS = 3, 3
SMALLEST_INCREASE = 5
MAX_LAST_PERCENT = (85, 90, 95)
"""Limits of the loading weeks' last sets, as in classic 5/3/1: what a true 1RM allows for five,
three and one repetition."""
RESTED_FROM, MAX_ABOVE = 55, 5
"""A deload is lighter than week 1 if that starts at ``RESTED_FROM`` or more; else it may be
``MAX_ABOVE`` heavier."""
REPETITIONS = (("5", "5", "5+"), ("3", "3", "3+"), ("5", "3", "1+"), ("5", "5", "5"))
"""Repetitions by week and set; ``+`` means as many as possible (AMRAP)."""


def week_fits(week: int, init: int) -> bool:
    return set_fits(SMALLEST_INCREASE, init, week)


def set_fits(set_: int, init: int, week: int) -> bool:
    """Return whether each loading week's last set can be lifted."""
    lasts = [init + week * w + set_ * (SETS - 1) for w in range(LOADING_WEEKS)]
    return all(last <= most for last, most in zip(lasts, MAX_LAST_PERCENT, strict=True))


def is_rest(deload: int, init: int) -> bool:
    """Return whether the deload's sets, as far apart as week 1's, are light enough."""
    return deload < init if init >= RESTED_FROM else deload <= init + MAX_ABOVE


def percents(init: int, week: int, set_: int, deload: int) -> list[list[int]]:
    """Return the percentage of each set: four weeks of three sets."""
    starts = [init + week * w for w in range(LOADING_WEEKS)] + [deload]
    return [[start + set_ * s for s in range(SETS)] for start in starts]


def plan_text(init: int, week: int, set_: int, deload: int) -> str:
    """Return the four-week plan as text, in the format of the first version."""
    weeks = []
    for number, sets in enumerate(percents(init, week, set_, deload)):
        lines = [f"Week{number + 1}"]
        for place, percent in enumerate(sets):
            lines.append(f"SET{place + 1} {percent}%x{REPETITIONS[number][place]}")
        weeks.append("\n".join(lines))
    return "\n\n".join(weeks) + "\n"


InitRate = Annotated[
    Literal[40, 45, 50, 55, 60, 65, 70, 75], Field(description="1주차 1세트의 강도 (1RM의 %)")
]
WeekRate = Annotated[
    Literal[5, 10],
    OnlyIf(week_fits, "init_weight_rate"),
    Field(description="주마다 더하는 강도 (%p)"),
]
SetRate = Annotated[
    Literal[5, 10],
    OnlyIf(set_fits, "init_weight_rate", "increase_rate_week"),
    Field(description="세트마다 더하는 강도 (%p)"),
]
DeloadRate = Annotated[
    Literal[35, 40, 45, 50, 55],
    OnlyIf(is_rest, "init_weight_rate"),
    Field(description="4주차(디로딩) 1세트의 강도 (1RM의 %)"),
]
RATES = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
_TOO_HEAVY = (
    "the last sets of weeks 1 to 3 are at most {}, {} and {} % of a 1RM, which is what it allows "
    "for five, three and one repetition"
).format(*MAX_LAST_PERCENT)
_NO_REST = (
    f"a deload is lighter than week 1 where that starts at {RESTED_FROM} % or more, and at most "
    f"{MAX_ABOVE} points heavier elsewhere"
)
_REASONS = dict(zip(RATES, ("", _TOO_HEAVY, _TOO_HEAVY, _NO_REST), strict=True))
"""Why an option may not be allowed, by rate."""


class RateAnswer(BaseModel):
    """The progression for one month: four rates in percent of 1RM, and the resulting plan."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    program: Literal["5/3/1 프로그램"] = Field(description="프로그램 이름")
    init_weight_rate: InitRate
    increase_rate_week: WeekRate
    increase_rate_set: SetRate
    deloading_rate: DeloadRate
    weekly_weight_increase_plan: Annotated[str, Derived(plan_text, *RATES)] = Field(
        description="4주 계획: 주차별 세트의 강도와 반복 횟수 (+는 최대 반복)"
    )


OUTPUT = Output(RateAnswer)


class Rates(BaseModel):
    """The four rates of a Task 1 answer, for requests that build on it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    init_weight_rate: InitRate
    increase_rate_week: WeekRate
    increase_rate_set: SetRate
    deloading_rate: DeloadRate

    @property
    def top(self) -> int:
        """Percentage of the heaviest set of the month: week 3, set 3."""
        return percents(*self.model_dump().values())[LOADING_WEEKS - 1][-1]

    @field_validator(*RATES)
    @classmethod
    def _can_be_lifted(cls, rate: int, info: ValidationInfo) -> int:
        (decision,) = (d for d in OUTPUT.decisions if d.path == info.field_name)
        if all(name in info.data for name in decision.needs):
            allowed = [option.value for option in decision.allowed(info.data)]
            if rate not in allowed:
                needed = " and ".join(f"{name} {info.data[name]}" for name in decision.needs)
                raise ValueError(
                    f"it must be {' or '.join(map(str, allowed))} with {needed}: "
                    f"{_REASONS[decision.path]}"
                )
        return rate
