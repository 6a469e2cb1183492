"""Who is at the engine, who waits, and who is refused at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.admission import Admission, Flow
from serving.gateway.deadline import Deadline
from serving.gateway.errors import InvalidRequest, Overloaded
from serving.gateway.metrics import TASK_POOL, Metrics
from serving.gateway.telemetry import Telemetry
from serving.limit import Limit

POOL = {"pool": TASK_POOL}


class Desk:
    """An admission, and requests that stay until they are told to go."""

    def __init__(self, most: int = 1, max_queue_seconds: float = 5.0) -> None:
        self.metrics, self.limit = Metrics(), Limit(most)
        self.admission = Admission(
            TASK_POOL, self.limit, max_queue_seconds, Telemetry(self.metrics, None)
        )
        self.entered: list[str] = []
        self._go: dict[str, asyncio.Event] = {}

    def ask(
        self,
        name: str,
        flow: str = "rate",
        seconds: float | None = 60,
        weight: int = 1,
        key: str = "",
    ) -> asyncio.Task[None]:
        """A request that holds its place until ``go(name)``."""
        return asyncio.create_task(self._hold(name, Flow(flow, key), seconds, weight))

    async def _hold(self, name: str, flow: Flow, seconds: float | None, weight: int) -> None:
        deadline = None if seconds is None else Deadline.after(seconds)
        async with self.admission.slot(flow, deadline, weight):
            self.entered.append(name)
            await self._go.setdefault(name, asyncio.Event()).wait()

    def go(self, name: str) -> None:
        self._go.setdefault(name, asyncio.Event()).set()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"routine_{name}", labels or POOL)

    def outcomes(self, flow: str) -> dict[str, float | None]:
        return {
            outcome: self.value("admissions_total", adapter=flow, outcome=outcome)
            for outcome in ("admitted", "rejected", "cancelled")
        }


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_place_that_is_left_goes_to_who_waits_longest() -> None:
    desk = Desk()
    tasks = [desk.ask(name) for name in "abc"]
    await settle()
    assert desk.entered == ["a"]
    assert desk.value("in_flight_requests") == desk.value("in_flight_limit_requests") == 1
    assert desk.value("queued_requests") == 2
    for name in "abc":
        desk.go(name)
    await asyncio.gather(*tasks)
    assert desk.entered == ["a", "b", "c"]
    assert desk.value("in_flight_requests") == desk.value("queued_requests") == 0
    assert desk.outcomes("rate") == {"admitted": 3, "rejected": 0, "cancelled": 0}


async def test_whose_wait_nobody_waits_for_is_not_measured() -> None:
    desk = Desk(max_queue_seconds=0)
    tasks = [desk.ask(name, seconds=None) for name in "ab"]
    await settle()
    assert desk.entered == ["a"]
    desk.go("a")
    desk.go("b")
    await asyncio.gather(*tasks)
    assert desk.value("queue_duration_seconds_count", adapter="rate") is None


async def test_who_leaves_the_queue_or_the_engine_frees_the_place() -> None:
    desk = Desk()
    first, second, third = (desk.ask(name) for name in "abc")
    await settle()
    second.cancel()
    await settle()
    first.cancel()
    await settle()
    assert desk.entered == ["a", "c"]
    desk.go("c")
    await third
    assert desk.value("in_flight_requests") == desk.value("queued_requests") == 0
    assert desk.outcomes("rate") == {"admitted": 2, "rejected": 0, "cancelled": 1}


async def test_who_leaves_at_the_moment_of_admission_frees_the_place() -> None:
    desk, go = Desk(), asyncio.Event()

    async def hold() -> None:
        async with desk.admission.slot(Flow("rate"), Deadline.after(60)):
            await go.wait()
        second.cancel()  # it has been let in, and does not know yet

    first = asyncio.create_task(hold())
    await settle()
    second, third = desk.ask("b"), desk.ask("c")
    await settle()
    go.set()
    desk.go("c")
    await asyncio.gather(first, third)
    assert desk.entered == ["c"]
    assert desk.value("in_flight_requests") == desk.value("queued_requests") == 0


async def test_a_request_that_would_wait_too_long_is_refused_at_once_and_told_how_long() -> None:
    desk = Desk(max_queue_seconds=5)
    desk.limit.observe("rate", 2.0, is_full=False)
    tasks = [desk.ask(name) for name in "abc"]
    await settle()
    assert desk.value("queue_expected_wait_seconds") == pytest.approx(6)
    with pytest.raises(Overloaded) as caught:  # two wait already: six seconds
        await desk.ask("d")
    assert caught.value.headers["retry-after"] in ("1", "2")
    with pytest.raises(Overloaded) as caught:
        async with desk.admission.slot(Flow("rate"), Deadline.after(1)):
            pass
    assert 7 <= int(caught.value.headers["retry-after"]) <= 11
    assert desk.outcomes("rate")["rejected"] == 2
    for task in tasks:
        task.cancel()


async def test_a_deadline_that_was_never_in_reach_is_the_caller_s_mistake() -> None:
    desk = Desk()
    desk.limit.observe("rate", 2.0, is_full=False)
    deadline = Deadline(Deadline.after(1).at, is_callers=True)
    with pytest.raises(InvalidRequest, match="an answer takes at least 2000 ms"):
        async with desk.admission.slot(Flow("rate"), deadline):
            pass
    async with desk.admission.slot(Flow("rate"), Deadline.after(1)):  # the route's own: it is tried
        pass


async def test_nobody_waits_past_a_deadline() -> None:
    desk = Desk()
    first = desk.ask("a")
    await settle()
    with pytest.raises(Overloaded):
        await desk.ask("b", seconds=0.05)
    assert desk.value("queued_requests") == 0
    first.cancel()


async def test_a_heavy_request_waits_until_all_of_it_fits_and_nobody_passes_it() -> None:
    desk = Desk(most=4)
    tasks = [desk.ask("a", weight=2), desk.ask("b", weight=4), desk.ask("c")]
    await settle()
    assert desk.entered == ["a"]
    desk.go("a")
    await settle()
    assert desk.entered == ["a", "b"]
    assert desk.value("in_flight_requests") == 4
    desk.go("b")
    desk.go("c")
    await asyncio.gather(*tasks)


async def test_a_flood_of_one_task_delays_no_other() -> None:
    desk = Desk()
    desk.limit.observe("rate", 0.01, is_full=False)
    desk.limit.observe("month", 0.04, is_full=False)
    tasks = [desk.ask(f"month {number}", "month") for number in range(50)]
    await settle()
    tasks += [desk.ask(f"rate {number}", "rate") for number in range(4)]
    await settle()
    for number in range(50):
        desk.go(f"month {number}")
    for number in range(4):
        desk.go(f"rate {number}")
    await asyncio.gather(*tasks)
    assert max(desk.entered.index(f"rate {number}") for number in range(4)) <= 8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=25))
def test_there_is_never_room_while_somebody_waits(steps: list[tuple[bool, int]]) -> None:
    """Work conserving, and never more than the limit."""

    async def run() -> None:
        desk = Desk(most=3)
        running: dict[str, tuple[asyncio.Task[None], int]] = {}
        for number, (comes, weight) in enumerate(steps):
            if comes or not running:
                task = desk.ask(str(number), ["rate", "month"][number % 2], weight=weight)
                running[str(number)] = task, weight
            else:
                name = next(iter(running))
                desk.go(name)
                await settle()
                if running[name][0].done():
                    del running[name]
            await settle()
            held = sum(weight for name, (_, weight) in running.items() if name in desk.entered)
            waiting = [weight for name, (_, weight) in running.items() if name not in desk.entered]
            assert held <= 3
            assert desk.value("in_flight_requests") == held
            assert desk.value("queued_requests") == len(waiting)
            assert not waiting or held + max(waiting) > 3
        for task, _ in running.values():
            task.cancel()

    asyncio.run(run())


async def test_turns_are_of_tokens_and_so_is_the_expected_wait() -> None:
    """In a full batch all take as long; by time, few would get as many turns of the costly."""
    desk = Desk(max_queue_seconds=600)
    for _ in range(50):
        for flow, tokens in (("rate", 10), ("month", 40)):
            async with desk.admission.slot(Flow(flow), Deadline.after(60)) as usage:
                usage.prompt_tokens += tokens
                usage.completion_tokens += tokens
    for flow in ("rate", "month") * 100:
        desk.limit.observe(flow, 1.0, is_full=False)
    names = [f"{flow}{number:02}" for number in range(20) for flow in ("rate", "month")]
    tasks = [desk.ask(name, flow=name[:-2], seconds=600) for name in names]
    await settle()
    assert desk.value("queue_expected_wait_seconds") == pytest.approx(20 * (4 + 1), rel=0.1)
    for number in range(20):
        desk.go(desk.entered[number])
        await settle()
    months = sum(name.startswith("month") for name in desk.entered)
    assert months == pytest.approx(4, abs=1)  # of 21: each costs as much as four rates
    for task in tasks:
        task.cancel()


async def test_keys_take_turns_whatever_the_others_ask() -> None:
    desk = Desk()
    held = desk.ask("first")
    await settle()
    asked = [desk.ask(f"flood {number}", key="flood") for number in range(50)]
    asked += [desk.ask(f"calm {number}", key="calm") for number in range(2)]
    await settle()
    for name in ("first", *(f"flood {n}" for n in range(50)), "calm 0", "calm 1"):
        desk.go(name)
    await asyncio.gather(held, *asked)
    assert max(map(desk.entered.index, ("calm 0", "calm 1"))) <= 5
    flood = [name for name in desk.entered if name.startswith("flood")]
    assert flood == [f"flood {number}" for number in range(50)], "within a flow, order"
