"""What a bar can be loaded with: the nearest weight to a target, and the plates on each side.

Weights are multiples of ``UNIT_KG``, so sums of plates are exact integers and the sets of loadable
sums are bits of an integer.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

UNIT_KG = 0.125
_UNIT, _HALF = Decimal("0.125"), Decimal("0.5")
MAX_PAIRS = 20
MAX_SIDE_UNITS = int(300 / UNIT_KG)
"""One side of a bar that weighs 600 kg, the largest 1RM."""
USUAL_PLATES_KG = (20.0, 15.0, 10.0, 5.0, 2.5, 1.25)
USUAL_BAR_KG = 20.0
MIN_STEP_KG, MAX_STEP_KG, USUAL_STEP_KG = 0.25, 5.0, 2.5
"""Limits and default of the weight step in kg; a step is a multiple of the minimum."""

PlateStep = Annotated[
    float,
    Field(
        ge=MIN_STEP_KG,
        le=MAX_STEP_KG,
        multiple_of=MIN_STEP_KG,
        allow_inf_nan=False,
        description="가장 작은 중량 단위 (kg): 세트는 목표에서 그 절반까지 벗어납니다",
    ),
]
Bar = Annotated[
    float,
    Field(
        ge=5,
        le=50,
        multiple_of=0.25,
        allow_inf_nan=False,
        description="빈 바의 무게 (kg): 보통 20 또는 15",
    ),
]


class Pairs(BaseModel):
    """Plates of one weight."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kg: float = Field(ge=UNIT_KG, le=50, multiple_of=UNIT_KG, allow_inf_nan=False)
    pairs: int = Field(ge=1, le=MAX_PAIRS, description="몇 쌍 (바 양쪽에 하나씩)")


class Loaded(NamedTuple):
    """A weight that can be lifted."""

    kg: float
    plates: tuple[float, ...]
    """Plates on each side in kg, heaviest first."""
    below_bar: bool
    """Whether it is lighter than the empty bar."""


def usual_plates(step_kg: float) -> dict[float, int]:
    """Return enough plates, by weight in kg, to load each multiple of ``step_kg`` beyond the bar:
    the usual ones that keep to the step, and halves, wholes and doubles of it below those."""
    fitting = [kg for kg in USUAL_PLATES_KG if 2 * kg % step_kg == 0]
    found, small = dict.fromkeys(fitting, MAX_PAIRS), step_kg / 2
    while small < min(fitting, default=USUAL_PLATES_KG[0]):
        found[small] = MAX_PAIRS
        small *= 2
    return found


class Loading:
    """The weights that a bar and plates make.

    Args:
        bar_kg: weight of the empty bar.
        plates: number of pairs by weight in kg.
        step_kg: grid of weights below the bar, which need another bar or dumbbells.
    """

    def __init__(self, bar_kg: float, plates: Mapping[float, int], step_kg: float) -> None:
        self._bar, self._step = _units(bar_kg), _units(step_kg)
        self._plates: list[tuple[int, int, int]] = []
        sums = 1
        for plate, pairs in sorted((_units(kg), pairs) for kg, pairs in plates.items()):
            self._plates.insert(0, (plate, pairs, sums))
            left = pairs
            while left:
                count = min(left, pairs - left + 1)  # 1, 2, 4 ... and the rest
                sums |= sums << plate * count
                left -= count
            sums &= (2 << MAX_SIDE_UNITS) - 1
        self._sums = sums
        """Bit n is set if plates make n units on one side."""

    def nearest(self, target_kg: Decimal) -> Loaded:
        """Return the weight nearest to ``target_kg``, the heavier one of two."""
        beyond = target_kg / _UNIT - self._bar
        if steps_down := math.ceil(-beyond / self._step - _HALF) if beyond < 0 else 0:
            return Loaded((self._bar - steps_down * self._step) * UNIT_KG, (), True)
        side = max(beyond, Decimal(0)) / 2
        floor = int(side)
        below = (self._sums & ((2 << floor) - 1)).bit_length() - 1
        above = self._sums >> floor + 1
        if above:
            heavier = floor + (above & -above).bit_length()
            if heavier - side <= side - below:
                below = heavier
        return Loaded((self._bar + 2 * below) * UNIT_KG, self._of(below), False)

    def _of(self, side: int) -> tuple[float, ...]:
        """Return plates that make ``side`` units, the heaviest first."""
        found: list[float] = []
        for plate, pairs, smaller in self._plates:
            count = min(pairs, side // plate)
            while not smaller >> side - count * plate & 1:
                count -= 1
            found += [plate * UNIT_KG] * count
            side -= count * plate
        return tuple(found)


def _units(kg: float) -> int:
    return int(kg / UNIT_KG)


@lru_cache(maxsize=256)
def loading_of(bar_kg: float, step_kg: float, plates: tuple[Pairs, ...] | None) -> Loading:
    """Return the loading of a request: with its plates, or the usual ones."""
    own = {one.kg: one.pairs for one in plates} if plates else usual_plates(step_kg)
    return Loading(bar_kg, own, step_kg)
