"""How many requests an engine should have at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.limit import MANY_TIMES, START, AdaptiveLimit


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


def served(
    found: AdaptiveLimit, alone: float, each: float, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, float]]:
    """How many an engine had at once, and for how many seconds, if it takes ``alone + each * N``
    for N requests, and more always wait."""
    batches = []
    with clock(monkeypatch) as now:
        for _ in range(600):
            at_once = int(found.value)
            seconds = alone + each * at_once
            now[0] += seconds
            for _ in range(at_once):
                found.observe("rate", seconds, is_full=True)
            batches.append((at_once, seconds))
    return batches


@pytest.mark.parametrize(("alone", "each"), [(0.03, 0.006), (0.65, 0.29), (0.3, 0.001)])
def test_the_limit_finds_nearly_all_of_an_engine_s_throughput(
    alone: float, each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = AdaptiveLimit(10_000)
    found.observe("rate", alone + each, is_full=False)
    values = [at_once / seconds for at_once, seconds in served(found, alone, each, monkeypatch)]
    assert sum(values[-100:]) / 100 > 0.9 / each


def test_who_starts_with_one_finds_out_what_a_request_takes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, each = 0.02, 0.005
    found = AdaptiveLimit(10_000, many_times=3, start=1)
    at_once, seconds = served(found, alone, each, monkeypatch)[-1]
    assert seconds < 4 * (alone + each)
    assert at_once / seconds > 0.5 / each


def test_the_limit_stays_within_its_bounds_and_still_while_it_is_not_reached() -> None:
    found = AdaptiveLimit(20)
    assert found.value == START
    for _ in range(100):
        found.observe("rate", 0.01, is_full=False)
    assert found.value == START
    for _ in range(100):
        found.observe("rate", 0.01, is_full=True)
    assert found.value == 20
    assert AdaptiveLimit(2).value == 2


def test_an_engine_that_slows_down_gets_fewer_down_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = AdaptiveLimit(256)
    found.observe("rate", 0.01, is_full=True)
    with clock(monkeypatch) as now:
        for _ in range(200):
            now[0] += 10
            found.observe("rate", 0.02 * MANY_TIMES, is_full=True)
    assert found.value == 1
