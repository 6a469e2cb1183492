"""Seeded profiles over the whole input space: plausible, unusual and extreme lifters."""

import math
import random
from collections.abc import Iterator

from serving.tasks.profile import (
    EXPERIENCE,
    GENDERS,
    MAX_KG,
    MIN_KG,
    PURPOSE,
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
SHARE_PLAUSIBLE, SHARE_EVERYDAY = 0.7, 0.15
"""Shares of plausible lifters and of unrelated everyday weights; the rest is any legal weight."""
EVERYDAY_MAX_KG = 200.0


def profiles(seed: int) -> Iterator[Profile]:
    """Yield an endless stream of profiles, deterministic for a given seed."""
    rng = random.Random(seed)
    while True:
        gender = rng.choice(GENDERS)
        kind = rng.random()
        if kind < SHARE_PLAUSIBLE:
            bench = BENCH_KG[gender] * math.exp(rng.gauss(0, BENCH_SPREAD))
            others = [bench * rng.gauss(mean, spread) for mean, spread in RATIO_TO_BENCH]
            lifts = [bench, *others]
        elif kind < SHARE_PLAUSIBLE + SHARE_EVERYDAY:
            lifts = [rng.uniform(MIN_KG, EVERYDAY_MAX_KG) for _ in range(4)]
        else:
            lifts = [math.exp(rng.uniform(math.log(MIN_KG), math.log(MAX_KG))) for _ in range(4)]
        bench, squat, dead, press = (min(max(on_grid(kg), MIN_KG), MAX_KG) for kg in lifts)
        assert bench % STEP_KG == 0
        yield profile_of(
            rng.choice(list(EXPERIENCE)),
            gender,
            rng.choice(list(PURPOSE)),
            (bench, squat, dead, press),
        )
