"""Seeded profiles over the whole input space: plausible, borderline, odd and extreme lifters."""

import math
import random
from collections.abc import Callable, Iterator, Mapping

from serving.tasks.profile import (
    EXPERIENCE,
    GENDERS,
    MAX_KG,
    MIN_KG,
    PURPOSE,
    STANDARD_KG,
    STEP_KG,
    Profile,
    on_grid,
    profile_of,
)

BENCH_KG = {"남성": 80.0, "여성": 40.0}
"""Median bench press of a plausible lifter, in kg."""
BENCH_SPREAD = 0.4
"""Standard deviation of the logarithm of a plausible bench press."""
RATIO_TO_BENCH = ((1.35, 0.18), (1.6, 0.22), (0.62, 0.09))
"""Ratios of squat, deadlift and overhead press to bench press: mean and standard deviation."""
BORDER_SPREAD = 0.08
"""Standard deviation of a borderline lift, as a share of its standard."""
EVERYDAY_MAX_KG = 200.0


def _plausible(rng: random.Random, gender: str) -> list[float]:
    bench = BENCH_KG[gender] * math.exp(rng.gauss(0, BENCH_SPREAD))
    return [bench, *(bench * rng.gauss(mean, spread) for mean, spread in RATIO_TO_BENCH)]


def _borderline(rng: random.Random, gender: str) -> list[float]:
    return [kg * rng.gauss(1, BORDER_SPREAD) for kg in STANDARD_KG[gender].values()]


def _everyday(rng: random.Random, gender: str) -> list[float]:
    return [rng.uniform(MIN_KG, EVERYDAY_MAX_KG) for _ in range(4)]


def _extreme(rng: random.Random, gender: str) -> list[float]:
    return [math.exp(rng.uniform(math.log(MIN_KG), math.log(MAX_KG))) for _ in range(4)]


Mix = Mapping[Callable[[random.Random, str], list[float]], float]
"""Kinds of lifters, each with its share: a function that draws four 1RMs in kg."""
USUAL: Mix = {_plausible: 0.55, _borderline: 0.15, _everyday: 0.15, _extreme: 0.15}
ODD: Mix = {_everyday: 0.5, _extreme: 0.5}
"""Lifts that have nothing to do with each other."""


def profiles(seed: int, mix: Mix = USUAL) -> Iterator[Profile]:
    """Yield an endless stream of profiles, deterministic for a given seed."""
    rng = random.Random(seed)
    while True:
        gender = rng.choice(GENDERS)
        (kind,) = rng.choices(list(mix), list(mix.values()))
        bench, squat, dead, press = (
            min(max(on_grid(kg), MIN_KG), MAX_KG) for kg in kind(rng, gender)
        )
        assert bench % STEP_KG == 0
        yield profile_of(
            rng.choice(list(EXPERIENCE)),
            gender,
            rng.choice(list(PURPOSE)),
            (bench, squat, dead, press),
        )
