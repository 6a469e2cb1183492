"""The lifter profile, the input common to all tasks: fields, limits and code meanings."""

from random import Random
from typing import Annotated, Generic, Literal, TypeVar
from unicodedata import normalize

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

EXPERIENCE = {1: "입문", 2: "초급", 3: "중급", 4: "상급", 5: "선수"}
PURPOSE = {
    1: "근력 향상",
    2: "근비대",
    3: "체지방 감량",
    4: "기초 체력",
    5: "건강 유지",
    6: "파워리프팅 기록",
}
GENDERS = ("남성", "여성")
LIFTS = {
    "bench_press": "벤치프레스",
    "squat": "스쿼트",
    "dead_lift": "데드리프트",
    "over_head_press": "오버헤드프레스",
}
"""The four main lifts in prompt order: field name to display name."""

MIN_KG, MAX_KG, STEP_KG = 10.0, 600.0, 2.5
"""1RM limits in kg (the maximum exceeds every raw world record), and the prompt's rounding step."""

STANDARD_KG = {
    "남성": {"bench_press": 80.0, "squat": 110.0, "dead_lift": 130.0, "over_head_press": 50.0},
    "여성": {"bench_press": 40.0, "squat": 60.0, "dead_lift": 75.0, "over_head_press": 30.0},
}
"""1RM in kg at which a lift counts as strong, by sex. Profiles carry no body weight."""
UNLIKELY = {1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0, 5: 4.0}
"""Multiple of the standard from which a 1RM is doubted, by experience. 1RMs in pounds, sent as
kilograms, are 2.2 times as large."""
POUND_KG = 0.45359237


def _codes(meanings: dict[int, str]) -> str:
    return ", ".join(f"{code} {meaning}" for code, meaning in meanings.items())


Kilograms = Annotated[float, Field(ge=MIN_KG, le=MAX_KG, allow_inf_nan=False)]


Value = TypeVar("Value")


class ByLift(BaseModel, Generic[Value]):
    """A value for each of the four main lifts."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    bench_press: Value
    """벤치프레스"""
    squat: Value
    """스쿼트"""
    dead_lift: Value
    """데드리프트"""
    over_head_press: Value
    """오버헤드프레스"""


class RmWeight(ByLift[Kilograms]):
    """One-repetition maxima (1RM) of the four main lifts, in kg."""


def _composed(given: object) -> object:
    """Compose Hangul that was sent as its letters (NFD), as macOS does."""
    return normalize("NFC", given) if isinstance(given, str) else given


class Profile(BaseModel):
    """The Task 1 request; its fields are unchanged since the first version."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    experience: int = Field(ge=1, le=5, description=f"운동 경험: {_codes(EXPERIENCE)}")
    gender: Annotated[Literal["남성", "여성"], BeforeValidator(_composed)] = Field(
        description="성별"
    )
    purpose: int = Field(ge=1, le=6, description=f"운동 목표: {_codes(PURPOSE)}")
    rm_weight: RmWeight = Field(description="네 가지 메인 리프트의 1RM (kg)")


def on_grid(kg: float) -> float:
    """Round ``kg`` to the smallest usual plate step (2.5 kg), half up."""
    return int(kg / STEP_KG + 0.5) * STEP_KG


def profile_of(
    experience: int, gender: str, purpose: int, lifts: tuple[float, float, float, float]
) -> Profile:
    """Build a profile from its seven values; ``lifts`` are in kg, in ``LIFTS`` order.

    Raises:
        pydantic.ValidationError: a value is out of range.
    """
    return Profile.model_validate(
        {
            "experience": experience,
            "gender": gender,
            "purpose": purpose,
            "rm_weight": dict(zip(LIFTS, lifts, strict=True)),
        }
    )


def doubts(profile: Profile) -> list[str]:
    """Return what the lifter should check, in Korean: weights that look like pounds."""
    return [
        f"{name} {kg:g}kg은 {EXPERIENCE[profile.experience]} {profile.gender}에게 드문 기록입니다. "
        f"파운드라면 {kg * POUND_KG:.1f}kg입니다."
        for lift, name in LIFTS.items()
        if (kg := getattr(profile.rm_weight, lift))
        >= UNLIKELY[profile.experience] * STANDARD_KG[profile.gender][lift]
    ]


PUBLISHED = (
    profile_of(1, "남성", 1, (40, 50, 55, 30)),
    profile_of(2, "여성", 3, (60, 70, 75, 40)),
    profile_of(3, "남성", 2, (80, 100, 105, 45)),
    profile_of(4, "여성", 4, (90, 110, 120, 50)),
    profile_of(5, "남성", 6, (130, 160, 170, 60)),
)
"""The five requests published with the first version of this product."""

EDGES = (
    profile_of(2, "여성", 5, (MIN_KG, 42.5, 101.2, 1.3 + MIN_KG)),
    profile_of(4, "남성", 4, (MAX_KG, 599.0, 202.5, 98.75)),
)
"""Profiles that cover the formatting of off-grid weights and of weights at the limits."""


def draw(rng: Random) -> Profile:
    """Draw a realistic profile; no two are alike, so answers cannot be memorized."""
    bench, squat, dead, press = (rng.uniform(20, 250) for _ in LIFTS)
    return profile_of(
        rng.choice(list(EXPERIENCE)),
        rng.choice(GENDERS),
        rng.choice(list(PURPOSE)),
        (bench, squat, dead, press),
    )


BEHIND, EVEN, AHEAD = STANDINGS = ("뒤처짐", "비슷", "앞섬")
"""How a lift stands among a lifter's four."""
APART = 0.1
"""Share of the mean from which a lift stands apart from the others."""


def standings(profile: Profile) -> dict[str, str]:
    """Return how each lift stands: its 1RM as a share of its standard, against the four's mean.
    Weights are on the 2.5 kg grid, as in the prompt."""
    standard = STANDARD_KG[profile.gender]
    shares = {lift: on_grid(getattr(profile.rm_weight, lift)) / standard[lift] for lift in LIFTS}
    mean = sum(shares.values()) / len(shares)
    return {
        lift: BEHIND
        if share < (1 - APART) * mean
        else AHEAD
        if share > (1 + APART) * mean
        else EVEN
        for lift, share in shares.items()
    }


def describe(profile: Profile) -> str:
    """Describe experience, gender and purpose in words."""
    return f"{EXPERIENCE[profile.experience]} {profile.gender}, {PURPOSE[profile.purpose]}"
