"""Deficit round robin, by its properties."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.fairness import FairQueue

COSTS = {"rate": 1.0, "month": 4.0, "other": 0.5}
PUSHES = st.lists(st.tuples(st.sampled_from(list(COSTS)), st.floats(0.01, 10)), max_size=60)


def drain(queue: FairQueue[str, tuple[str, int]]) -> list[tuple[str, int]]:
    return [queue.pop() for _ in range(len(queue))]


@given(PUSHES)
def test_nothing_is_lost_and_each_flow_keeps_its_order(pushes: list[tuple[str, float]]) -> None:
    queue: FairQueue[str, tuple[str, int]] = FairQueue()
    for number, (flow, cost) in enumerate(pushes):
        queue.push(flow, (flow, number), cost)
    came = drain(queue)
    assert sorted(came, key=lambda item: item[1]) == [(f, n) for n, (f, _) in enumerate(pushes)]
    for flow in COSTS:
        numbers = [number for name, number in came if name == flow]
        assert numbers == sorted(numbers)
    assert not queue.flows


@given(PUSHES, st.data())
def test_who_leaves_changes_nobody_s_order(
    pushes: list[tuple[str, float]], data: st.DataObject
) -> None:
    queue: FairQueue[str, tuple[str, int]] = FairQueue()
    items = [(flow, number) for number, (flow, _) in enumerate(pushes)]
    for item, (flow, cost) in zip(items, pushes, strict=True):
        queue.push(flow, item, cost)
    left = data.draw(st.sets(st.sampled_from(items))) if items else set()
    for item in left:
        queue.discard(item[0], item)
        queue.discard(item[0], item)  # it is gone: nothing happens
    assert set(drain(queue)) == set(items) - left


@given(st.lists(st.sampled_from([0.1, 1.0, 4.0, 10.0]), min_size=2, max_size=4))
def test_flows_that_always_have_more_get_the_same_cost(costs: list[float]) -> None:
    """Within one round, whatever one item of theirs costs; so none starves."""
    queue: FairQueue[str, str] = FairQueue()
    costs_of = {str(number): cost for number, cost in enumerate(costs)}
    for flow, cost in costs_of.items():
        for _ in range(3):
            queue.push(flow, flow, cost)
    got: defaultdict[str, float] = defaultdict(float)
    for _ in range(500):
        flow = queue.pop()
        got[flow] += costs_of[flow]
        queue.push(flow, flow, costs_of[flow])
        shares = [got[name] for name in costs_of]
        assert max(shares) - min(shares) <= 3 * max(costs)


def test_a_flow_that_needs_little_waits_for_no_flood() -> None:
    queue: FairQueue[str, str] = FairQueue()
    for _ in range(1000):
        queue.push("month", "month", 4.0)
    queue.pop()
    queue.push("rate", "rate", 1.0)
    assert "rate" in [queue.pop() for _ in range(3)]


def test_an_idle_flow_cannot_save_up() -> None:
    queue: FairQueue[str, str] = FairQueue()
    for _ in range(100):
        queue.push("rate", "rate", 1.0)
        queue.pop()
    for _ in range(20):
        queue.push("month", "month", 1.0)
        queue.push("rate", "rate", 1.0)
    first = [queue.pop() for _ in range(10)]
    assert first.count("rate") == pytest.approx(5, abs=1)
