"""The next cycle: one lift at a time, and a lifter over a year."""

import itertools
from typing import Any

import pytest

from serving.tasks.cycle import NEXT, STEP_KG, NextRequest, next_cycle
from serving.tasks.profile import LIFTS

RATES = {
    "init_weight_rate": 65, "increase_rate_week": 5, "increase_rate_set": 10, "deloading_rate": 40,
}  # fmt: skip


def asked(kg: float, reached: int, **fields: Any) -> NextRequest:
    return NextRequest.model_validate(
        NEXT.examples[0].model_dump(exclude={"repetitions", "rates"})
        | {"rm_weight": dict.fromkeys(LIFTS, kg), "rates": RATES}
        | {"repetitions": dict.fromkeys(LIFTS, reached)}
        | fields
    )


@pytest.mark.parametrize(
    ("lift", "kg", "repetitions", "after", "change"),
    [
        ("bench_press", 100, 5, 102.5, "step"),  # 95 kg x 5: 110.8 kg
        ("over_head_press", 100, 5, 102.5, "step"),
        ("squat", 100, 5, 105, "step"),
        ("dead_lift", 100, 5, 105, "step"),
        ("squat", 100, 3, 104.5, "estimate"),  # 95 kg x 3
        ("bench_press", 100, 1, 98.2, "estimate"),
        ("bench_press", 100, 0, 90, "reset"),
        ("squat", 200, 0, 180, "reset"),
        ("squat", 10, 0, 10, "reset"),  # the least that a profile may have
        ("dead_lift", 600, 50, 600, "step"),  # the most
    ],
)
def test_a_lift_takes_its_step_its_estimate_or_goes_back(
    lift: str, kg: float, repetitions: int, after: float, change: str
) -> None:
    answer = next_cycle(asked(kg, repetitions))
    found = getattr(answer.lifts, lift)
    assert (found.after, found.change) == (after, change)
    assert getattr(answer.profile.rm_weight, lift) == after


def test_the_weight_is_the_one_that_was_loaded() -> None:
    plates = [{"kg": kg, "pairs": 2} for kg in (20, 10, 5, 2.5)]
    found = next_cycle(asked(101, 3, plates=plates, plate_step=5.0, basis="tm")).lifts.squat
    assert found.kg == 85  # 95 % of 90.9 kg is 86.4 kg
    assert found.estimated_1rm == 93.5


def test_nothing_is_lowered_below_90_percent_by_a_light_last_set() -> None:
    rates = dict(zip(RATES, (40, 5, 5, 40), strict=True))
    found = next_cycle(asked(100, 5, rates=rates)).lifts.squat
    assert (found.kg, found.estimated_1rm) == (60, 70)
    assert (found.after, found.change) == (90, "reset")


def test_the_next_profile_is_the_lifter_s() -> None:
    request = asked(100, 5)
    profile = next_cycle(request).profile
    assert profile.model_dump(exclude={"rm_weight"}) == {
        name: getattr(request, name) for name in ("experience", "gender", "purpose")
    }


@pytest.mark.parametrize("told", [80.0, 100.0, 130.0])
@pytest.mark.parametrize("gain", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("basis", ["1rm", "tm"])
def test_twelve_cycles_follow_a_lifter(told: float, gain: float, basis: str) -> None:
    """Who says too much comes down, who says too little goes up, and who gains is kept up with."""
    true, said = dict.fromkeys(LIFTS, 100.0), dict.fromkeys(LIFTS, told)
    missed: list[list[str]] = []
    for _ in range(12):
        request = asked(100, 0, rm_weight=said, basis=basis)
        tried = next_cycle(request).lifts.model_dump()
        reached = {lift: _repetitions(true[lift], tried[lift]["kg"]) for lift in LIFTS}
        answer = next_cycle(asked(100, 0, rm_weight=said, basis=basis, repetitions=reached))
        missed.append([lift for lift, count in reached.items() if not count])
        before, said = said, answer.profile.rm_weight.model_dump()
        for lift, kg in said.items():
            assert 0.9 * before[lift] - 0.05 <= kg <= before[lift] + STEP_KG[lift]
        true = {lift: kg + gain for lift, kg in true.items()}
    assert all(not lifts for lifts in missed[3:]), "a lift is missed again and again"
    for lift, kg in said.items():
        assert kg <= 1.02 * true[lift]
        assert kg >= min(0.9 * (true[lift] - gain), min(told, 100) + 12 * 2.5 - 10)
    assert all(
        not set(one) & set(other) for one, other in itertools.pairwise(missed) if told <= 100
    )


def _repetitions(true_kg: float, kg: float) -> int:
    """Repetitions that a lifter of this 1RM reaches, by Epley's formula."""
    return 0 if kg > true_kg else min(50, max(1, int(30 * (true_kg / kg - 1))))
