"""Task 2, ``month``: four weeks of training days, with weights in kg and assistance work.

The model decides the assistance work (``assistance``). The lifts of each day (``week``), the
percentages, the weights and the deload are computed from the request and its rates.
"""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from serving.language.fields import encode
from serving.tasks.month.assistance import slots_of
from serving.tasks.month.exercises import Category
from serving.tasks.month.loading import (
    USUAL_BAR_KG,
    USUAL_STEP_KG,
    Bar,
    Loading,
    Pairs,
    PlateStep,
    loading_of,
)
from serving.tasks.month.week import DAYS, Lifts
from serving.tasks.profile import LIFTS, ByLift, Profile, doubts
from serving.tasks.rate.answer import (
    LOADING_WEEKS,
    MAX_LAST_PERCENT,
    PROGRAM,
    REPETITIONS,
    Rates,
    percents,
)

WEEKS = 4
BASIS_SHARE = {"1rm": Decimal(1), "tm": Decimal("0.9")}
"""What percentages refer to, as a share of 1RM: the 1RM or the training max."""
WARM_UP = ((40, "5"), (50, "5"), (60, "3"))
"""Percentage and repetitions of the warm-up sets; those below the first main set are done."""

Lift = Literal["bench_press", "squat", "dead_lift", "over_head_press"]
Basis = Literal["1rm", "tm"]
Days = Annotated[int, Field(ge=2, le=4, description="주당 훈련일")]


class CycleRequest(Profile):
    """A profile, and what the weights of its month follow from."""

    rates: Rates | None = Field(
        default=None, description="`rate`의 답에 있는 네 비율. 없으면 먼저 만듭니다"
    )
    basis: Basis = Field(
        default="1rm", description="퍼센트의 기준: 1rm, 또는 tm (트레이닝 맥스, 1RM의 90%)"
    )
    plate_step: PlateStep = USUAL_STEP_KG
    bar: Bar = USUAL_BAR_KG
    plates: tuple[Pairs, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=12,
        strict=False,
        description="가진 원판: 무게(kg)와 쌍의 수. 없으면 `plate_step`에 맞는 흔한 원판",
    )

    @field_validator("bar")
    @classmethod
    def _can_be_lifted(cls, bar: float, info: ValidationInfo) -> float:
        targets = _targets(info.data)
        most = max((float(kg) for _, _, kg in targets), default=math.inf)
        if bar > max(most, USUAL_BAR_KG):
            raise ValueError(
                f"it must be at most {max(most, USUAL_BAR_KG):.4g} kg: no set is heavier"
            )
        return bar

    @field_validator("plates")
    @classmethod
    def _load_every_set(
        cls, plates: tuple[Pairs, ...] | None, info: ValidationInfo
    ) -> tuple[Pairs, ...] | None:
        if plates is None or not {"bar", "plate_step"} <= set(info.data):
            return plates
        if len({one.kg for one in plates}) < len(plates):
            raise ValueError("each weight must be listed once, with its number of pairs")
        loading = loading_of(info.data["bar"], info.data["plate_step"], plates)
        for lift, percent, kg in _targets(info.data):
            nearest = Decimal(loading.nearest(kg).kg)
            if 2 * abs(nearest - kg) > Decimal(info.data["plate_step"]):
                raise ValueError(
                    f"{percent} % of {lift} is {kg:.5g} kg, and the nearest that they load is "
                    f"{nearest:.5g} kg: add pairs, or raise plate_step"
                )
        return plates

    @property
    def loading(self) -> Loading:
        """What the bar can be loaded with."""
        return loading_of(self.bar, self.plate_step, self.plates)


class MonthRequest(CycleRequest):
    """A profile, the training days per week, and the inputs for computing weights."""

    days_per_week: Days


def target_kg(one_rm_kg: float, basis: str, percent: int) -> Decimal:
    """Return ``percent`` of the basis, exactly: in binary floating point 90 % of a 1RM can put an
    exact half just below."""
    return Decimal(str(one_rm_kg)) * BASIS_SHARE[basis] * percent / 100


def _targets(fields: Mapping[str, Any]) -> list[tuple[str, int, Decimal]]:
    """Return lift, percentage and target of all sets, warm-ups included; of any possible, if the
    rates are still to come; nothing if a field is invalid."""
    weights, basis = fields.get("rm_weight"), fields.get("basis")
    if weights is None or basis is None or "rates" not in fields:
        return []
    rates: Rates | None = fields["rates"]
    found = set(range(35, max(MAX_LAST_PERCENT) + 1, 5))
    if rates:
        plan = percents(*rates.model_dump().values())
        found = {percent for week in plan for percent in week} | {percent for percent, _ in WARM_UP}
    return [
        (lift, percent, target_kg(getattr(weights, lift), basis, percent))
        for lift in LIFTS
        for percent in sorted(found)
    ]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LiftSet(_Part):
    """One set of a main lift."""

    percent: int = Field(description="강도 (기준의 %)")
    kg: float = Field(description="중량 (kg), 바 포함")
    plates: list[float] = Field(description="바 한쪽에 끼울 원판 (kg), 무거운 것부터")
    below_bar: bool = Field(description="참이면 빈 바보다 가벼움: 더 가벼운 바나 덤벨로")
    repetitions: int = Field(description="반복 횟수")
    amrap: bool = Field(description="참이면 `repetitions`는 최소: 할 수 있는 만큼 반복")


class MainLift(_Part):
    """A main lift of a training day."""

    lift: Lift
    warm_up: list[LiftSet] = Field(description="웜업: 첫 본 세트보다 가벼운 것만")
    sets: list[LiftSet]


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
    lifts: list[MainLift]
    assistance: list[AssistanceExercise]


class Week(_Part):
    """One week; the fourth is the deload."""

    week: int
    deload: bool
    days: list[Day]


class TrainingMax(ByLift[float]):
    """90 % of each 1RM, in kg."""


class MonthAnswer(_Part):
    """Four weeks of training."""

    program: Literal["5/3/1 프로그램"] = Field(description="프로그램 이름")
    days_per_week: Days
    basis: Basis
    training_max: TrainingMax | None = Field(description="트레이닝 맥스 (kg), `basis`가 tm이면")
    plate_step: PlateStep
    bar: Bar
    rates: Rates
    weeks: list[Week]
    notes: list[str] = Field(description="확인할 것: 파운드로 보이는 중량 등")


def render(request: MonthRequest, values: Mapping[str, Any]) -> str:
    """Return the month as JSON text.

    Args:
        request: the request, including its rates.
        values: model decisions, as parsed by the request's ``assistance.output_for``.
    """
    assert request.rates, "Task 1 comes first"
    rates = request.rates.model_dump()
    plan = percents(*rates.values())
    days = list(enumerate(DAYS[request.days_per_week], 1))
    return encode(
        {
            "program": PROGRAM,
            "days_per_week": request.days_per_week,
            "basis": request.basis,
            "training_max": _training_max(request),
            "plate_step": request.plate_step,
            "bar": request.bar,
            "rates": rates,
            "weeks": [
                {
                    "week": week + 1,
                    "deload": week >= LOADING_WEEKS,
                    "days": [_day(request, values, plan[week], week, *day) for day in days],
                }
                for week in range(WEEKS)
            ],
            "notes": doubts(request),
        }
    )


def _training_max(request: MonthRequest) -> dict[str, float] | None:
    if request.basis == "1rm":
        return None
    weights = request.rm_weight.model_dump()
    return {lift: float(target_kg(kg, "tm", 100)) for lift, kg in weights.items()}


def _day(
    request: MonthRequest,
    values: Mapping[str, Any],
    plan: list[int],
    week: int,
    day: int,
    lifts: Lifts,
) -> dict[str, Any]:
    sets = list(zip(plan, REPETITIONS[week], strict=True))
    share = 1 if week < LOADING_WEEKS else 2
    return {
        "day": day,
        "lifts": [_main_lift(request, lift, sets) for lift in lifts],
        "assistance": [
            {
                "name": exercise.name,
                "category": exercise.category,
                "muscle_groups": exercise.muscles,
                "equipment": exercise.equipment,
                "sets": count,
                "repetitions": repetitions // share,
            }
            for exercise, count, repetitions in slots_of(values, lifts, request.experience)
        ],
    }


def _main_lift(request: MonthRequest, lift: str, plan: list[tuple[int, str]]) -> dict[str, Any]:
    """Return a lift's sets, given their percentages and repetitions."""
    one_rm, nearest = getattr(request.rm_weight, lift), request.loading.nearest

    def sets(given: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
        return [
            {
                "percent": percent,
                **nearest(target_kg(one_rm, request.basis, percent))._asdict(),
                "repetitions": int(count.removesuffix("+")),
                "amrap": count.endswith("+"),
            }
            for percent, count in given
        ]

    first, _ = plan[0]
    return {"lift": lift, "warm_up": sets(s for s in WARM_UP if s[0] < first), "sets": sets(plan)}
