"""What a bar is loaded with, against a search through every combination of plates."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tasks.month.answer import target_kg
from serving.tasks.month.loading import MAX_PAIRS, MIN_STEP_KG, Loading, Pairs, loading_of
from serving.tasks.profile import MAX_KG
from tests.kit.oracle_month import loadable

STEPS = [MIN_STEP_KG * number for number in range(1, 21)]


@pytest.mark.parametrize(
    ("kg", "basis", "percent", "step", "expected"),
    [
        (100, "1rm", 65, 2.5, 65.0),
        (100, "tm", 65, 2.5, 57.5),  # 58.5
        (50, "1rm", 55, 5, 30.0),  # 27.5: halves up
        (45, "1rm", 50, 5, 25.0),  # 22.5: halves up, not to even
        (101.2, "1rm", 65, 0.5, 66.0),  # 65.78
        (88.8, "tm", 50, 0.25, 40.0),  # 39.96
        (62.5, "tm", 60, 2.5, 35.0),  # 33.75: halves up
        (10, "tm", 35, 5, 5.0),  # the lightest set there is
        (25, "1rm", 55, 2.5, 15.0),  # 13.75, below the bar: halves up too
    ],
)
def test_kilograms_are_rounded_to_the_step(
    kg: float, basis: str, percent: int, step: float, expected: float
) -> None:
    assert loading_of(20, step, None).nearest(target_kg(kg, basis, percent)).kg == expected


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("bar", [5.0, 15.0, 20.0, 20.25])
def test_the_usual_plates_load_every_step_beyond_the_bar(bar: float, step: float) -> None:
    loading = loading_of(bar, step, None)
    for number in range(int((MAX_KG - bar) / step)):
        kg, plates, below_bar = loading.nearest(Decimal(bar + number * step))
        assert kg == bar + number * step == bar + 2 * sum(plates)
        assert not below_bar
        assert list(plates) == sorted(plates, reverse=True)
        assert len(plates) < 2 * MAX_PAIRS


def test_the_heaviest_plates_come_first() -> None:
    assert loading_of(20, 2.5, None).nearest(Decimal("118")).plates == (20, 20, 5, 2.5, 1.25)
    own = (Pairs(kg=25, pairs=1), Pairs(kg=10, pairs=9))
    assert loading_of(20, 5, own).nearest(Decimal(90)).plates == (25, 10)
    assert loading_of(20, 5, own).nearest(Decimal(100)).plates == (10, 10, 10, 10)


@given(
    bar=st.integers(20, 200).map(lambda n: n / 4),
    plates=st.dictionaries(
        st.integers(1, 400).map(lambda n: n / 8), st.integers(1, 3), min_size=1, max_size=5
    ),
    target=st.decimals(Decimal("3.15"), 570, places=3),
)
def test_the_nearest_weight_is_found_among_all(
    bar: float, plates: dict[float, int], target: Decimal
) -> None:
    kg, used, below_bar = Loading(bar, plates, 2.5).nearest(target)
    if below_bar:
        assert 0 < kg < bar and used == () and target < bar
        assert abs(kg - float(target)) <= 2.5 / 2
        return
    assert kg == bar + 2 * sum(used)
    assert all(used.count(plate) <= plates.get(plate, 0) for plate in used)
    every = loadable(Fraction(bar), [{"kg": kg, "pairs": n} for kg, n in plates.items()])
    best = min(abs(other - Fraction(target)) for other in every)
    assert abs(Fraction(kg) - Fraction(target)) == best
    ties = [other for other in every if abs(other - Fraction(target)) == best]
    assert kg == max(ties)


@pytest.mark.parametrize(
    ("target", "kg", "below_bar"),
    [("18.75", 20, False), ("18.74", 17.5, True), ("3.15", 2.5, True), ("21.24", 20, False)],
)
def test_what_is_lighter_than_the_bar_is_marked_and_never_raised(
    target: str, kg: float, below_bar: bool
) -> None:
    assert loading_of(20, 2.5, None).nearest(Decimal(target)) == (kg, (), below_bar)
