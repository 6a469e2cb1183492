"""Task 2, ``month``: four weeks of training days, with weights in kg and assistance work.

The model decides the assistance work (``assistance``). The lift of each day, the percentages, the
weights and the deload are computed from the request and its rates.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.language.fields import encode
from serving.tasks.month.assistance import slots_of
from serving.tasks.month.exercises import Category
from serving.tasks.profile import Profile
from serving.tasks.rate.answer import LOADING_WEEKS, PROGRAM, RATES, REPETITIONS, Rates, percents

WEEKS = 4
ROTATION = ("bench_press", "squat", "over_head_press", "dead_lift")
"""Order of the main lifts: alternates upper and lower body for any number of days per week."""
BASIS_SHARE = {"1rm": Decimal(1), "tm": Decimal("0.9")}
"""What percentages refer to, as a share of 1RM: the 1RM or the training max."""
MIN_STEP_KG, MAX_STEP_KG, USUAL_STEP_KG = 0.25, 5.0, 2.5
"""Plate step limits and default in kg; a step must be a multiple of the minimum. The lightest set
(35 % of 90 % of 10 kg) still rounds to one step of the maximum."""

Lift = Literal["bench_press", "squat", "dead_lift", "over_head_press"]
Basis = Literal["1rm", "tm"]
Days = Annotated[int, Field(ge=2, le=4, description="주당 훈련일")]
PlateStep = Annotated[
    float,
    Field(
        ge=MIN_STEP_KG,
        le=MAX_STEP_KG,
        multiple_of=MIN_STEP_KG,
        allow_inf_nan=False,
        description="가장 작은 중량 단위 (kg): 모든 세트를 여기에 맞춰 반올림",
    ),
]


class MonthRequest(Profile):
    """A profile, the training days per week, and the inputs for computing weights."""

    days_per_week: Days
    rates: Rates | None = Field(
        default=None, description="`rate`의 답에 있는 네 비율. 없으면 먼저 만듭니다"
    )
    basis: Basis = Field(
        default="1rm", description="퍼센트의 기준: 1rm, 또는 tm (트레이닝 맥스, 1RM의 90%)"
    )
    plate_step: PlateStep = USUAL_STEP_KG


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MainSet(_Part):
    """One set of the main lift."""

    percent: int = Field(description="강도 (기준의 %)")
    kg: float = Field(description="중량 (kg)")
    repetitions: int = Field(description="반복 횟수")
    amrap: bool = Field(description="참이면 `repetitions`는 최소: 할 수 있는 만큼 반복")


class AssistanceExercise(_Part):
    """One assistance exercise of a training day."""

    name: str
    category: Category = Field(description="밀기, 당기기, 하체, 코어")
    muscle_groups: list[str] = Field(description="쓰는 근육, 주된 것부터")
    equipment: str = Field(description="장비")
    sets: int
    repetitions: int = Field(description="세트당 반복 (한쪽씩 하는 운동은 한쪽 기준)")


class Day(_Part):
    """One training day."""

    day: int = Field(description="그 주의 몇 번째 훈련일")
    lift: Lift
    sets: list[MainSet]
    assistance: list[AssistanceExercise]


class Week(_Part):
    """One week; the fourth is the deload."""

    week: int
    deload: bool
    days: list[Day]


class MonthAnswer(_Part):
    """Four weeks of training."""

    program: Literal["5/3/1 프로그램"] = Field(description="프로그램 이름")
    days_per_week: Days
    basis: Basis
    plate_step: PlateStep
    rates: Rates
    weeks: list[Week]


def lift_of(week: int, day: int, days_per_week: int) -> str:
    """Return the main lift of a training day; ``week`` and ``day`` are zero-based."""
    return ROTATION[(week * days_per_week + day) % len(ROTATION)]


def kilograms(one_rm_kg: float, basis: str, percent: int, step_kg: float) -> float:
    """Return ``percent`` of the basis, rounded half up to the plate step. Uses decimals, because in
    binary floating point 90 % of 1RM can put an exact half just below."""
    step = Decimal(str(step_kg))
    exact = Decimal(str(one_rm_kg)) * BASIS_SHARE[basis] * percent / 100
    return float((exact / step).quantize(Decimal(1), ROUND_HALF_UP) * step)


def render(request: MonthRequest, values: Mapping[str, Any]) -> str:
    """Return the month as JSON text.

    Args:
        request: the request, including its rates.
        values: model decisions, as parsed by ``assistance.output_for(request.experience)``.
    """
    assert request.rates, "Task 1 comes first"
    rates = request.rates.model_dump()
    plan = percents(*(rates[name] for name in RATES))
    days = range(request.days_per_week)
    return encode(
        {
            "program": PROGRAM,
            "days_per_week": request.days_per_week,
            "basis": request.basis,
            "plate_step": request.plate_step,
            "rates": rates,
            "weeks": [
                {
                    "week": week + 1,
                    "deload": week >= LOADING_WEEKS,
                    "days": [_day(request, values, plan[week], week, day) for day in days],
                }
                for week in range(WEEKS)
            ],
        }
    )


def _day(
    request: MonthRequest, values: Mapping[str, Any], sets: list[int], week: int, day: int
) -> dict[str, Any]:
    lift = lift_of(week, day, request.days_per_week)
    one_rm = getattr(request.rm_weight, lift)
    share = 1 if week < LOADING_WEEKS else 2
    return {
        "day": day + 1,
        "lift": lift,
        "sets": [
            {
                "percent": percent,
                "kg": kilograms(one_rm, request.basis, percent, request.plate_step),
                "repetitions": int(count.removesuffix("+")),
                "amrap": count.endswith("+"),
            }
            for percent, count in zip(sets, REPETITIONS[week], strict=True)
        ],
        "assistance": [
            {
                "name": exercise.name,
                "category": exercise.category,
                "muscle_groups": exercise.muscles,
                "equipment": exercise.equipment,
                "sets": count,
                "repetitions": repetitions // share,
            }
            for exercise, count, repetitions in slots_of(values, lift)
        ],
    }
