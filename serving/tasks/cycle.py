"""The next cycle: what to lift after a month, from the repetitions reached in it.

5/3/1 raises each lift's maximum by a fixed step, 2.5 kg for the presses and 5 kg for squat and
deadlift, and takes 10 % off a lift that has stalled (J. Wendler, *5/3/1: The Simplest and Most
Effective Training System for Raw Strength*, 2nd edition, 2011, "Progression" and "Stalling"). The
last set of week 3 is done for as many repetitions as possible, so it also shows how strong the
lifter is: by Epley's formula, weight x (1 + repetitions / 30) (B. Epley, *Poundage Chart*, 1985).
The next maximum is the smaller of the two, and at least 90 % of the last.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serving.tasks.base import BadRequest, Calculation
from serving.tasks.month.answer import CycleRequest, target_kg
from serving.tasks.month.examples import EXAMPLES
from serving.tasks.profile import LIFTS, MAX_KG, MIN_KG, ByLift, Profile, RmWeight
from serving.tasks.rate.answer import Rates

STEP_KG = {"bench_press": 2.5, "squat": 5.0, "dead_lift": 5.0, "over_head_press": 2.5}
RESET_SHARE = 0.9
EPLEY_REPETITIONS = 30
MAX_REPETITIONS = 50

Reached = Annotated[int, Field(ge=0, le=MAX_REPETITIONS)]
Change = Literal["step", "estimate", "reset"]


class Repetitions(ByLift[Reached]):
    """Repetitions reached in the last set of week 3, by lift; 0 if it was missed."""


class NextRequest(CycleRequest):
    """The cycle that was trained, and what was reached in it."""

    rates: Rates = Field(description="훈련한 달의 네 비율")
    repetitions: Repetitions = Field(
        description="3주차 마지막 세트(1+)에서 한 반복. 한 번도 못 했으면 0"
    )


class NextLift(BaseModel):
    """How a lift's maximum changes."""

    kg: float = Field(description="3주차 마지막 세트의 중량 (kg)")
    repetitions: int = Field(description="그 세트에서 한 반복")
    estimated_1rm: float | None = Field(
        description="그 세트로 추정한 1RM (kg, Epley 공식). 한 번도 못 했으면 null"
    )
    before: float = Field(description="지난 1RM (kg)")
    after: float = Field(description="다음 1RM (kg)")
    change: Change = Field(
        description="step: 정해진 만큼 올림, estimate: 추정 1RM에 맞춤, reset: 90%로 되돌림"
    )


class NextLifts(ByLift[NextLift]):
    """How each lift's maximum changes."""


class NextAnswer(BaseModel):
    """The next cycle's profile, ready to be sent to the other routes, and how it came about."""

    profile: Profile = Field(description="다음 달의 프로필: `rate`와 `month`에 그대로 보냅니다")
    lifts: NextLifts


def next_cycle(request: NextRequest) -> NextAnswer:
    """Return the profile for the cycle after ``request``."""
    lifts = {lift: _next(request, lift) for lift in LIFTS}
    weights = RmWeight(**{lift: one.after for lift, one in lifts.items()})
    kept = {name: getattr(request, name) for name in Profile.model_fields}
    return NextAnswer(profile=Profile(**kept | {"rm_weight": weights}), lifts=NextLifts(**lifts))


def _next(request: NextRequest, lift: str) -> NextLift:
    before, rates = getattr(request.rm_weight, lift), request.rates
    repetitions = getattr(request.repetitions, lift)
    kg = request.loading.nearest(target_kg(before, request.basis, rates.top)).kg
    estimate = kg * (1 + repetitions / EPLEY_REPETITIONS)
    candidates: dict[Change, float] = {"step": before + STEP_KG[lift], "estimate": estimate}
    change = min(candidates, key=candidates.__getitem__)
    after, reset = candidates[change], RESET_SHARE * before
    if repetitions == 0 or after < reset:
        change, after = "reset", reset
    return NextLift(
        kg=kg,
        repetitions=repetitions,
        estimated_1rm=round(estimate, 1) if repetitions else None,
        before=before,
        after=round(min(max(after, MIN_KG), MAX_KG), 1),
        change=change,
    )


_EXAMPLE = NextRequest.model_validate(
    {
        **EXAMPLES[2].model_dump(include=set(CycleRequest.model_fields)),
        "repetitions": {"bench_press": 7, "squat": 6, "dead_lift": 3, "over_head_press": 0},
    }
)
NEXT = Calculation(
    name="next",
    summary="다음 달의 프로필: 3주차에서 한 반복으로 네 리프트의 1RM을 정함",
    request=NextRequest,
    response=NextAnswer,
    examples=(_EXAMPLE,),
    compute=next_cycle,
    bad=(
        BadRequest(
            {"repetitions": {"bench_press": 51, "squat": 1, "dead_lift": 1, "over_head_press": 1}},
            "repetitions.bench_press",
            "an integer from 0 to 50",
        ),
    ),
)
