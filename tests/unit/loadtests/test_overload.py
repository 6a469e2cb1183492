"""What the overload run takes for a fault, and its raw client."""

import asyncio
import time
from typing import Any

import pytest

from loadtests.overload import Clients, faults, tables
from serving.gateway.settings import GatewaySettings
from tests.unit.gateway.running import running

OVERLOAD: dict[str, Any] = {
    "task": "rate", "best": 100.0, "offered": 1000.0, "goodput": 85.5, "left": 0.9,
    "statuses": {"200": 95, "429": 905}, "admitted p99": 8.0, "refused median": 0.001,
    "memory": [2**20, 2**21], "obedient": 3,
}  # fmt: skip
FLOOD: dict[str, Any] = {"by": "month", "task": "rate", "offered": 50.0, "good": 1.0, "p99": 2.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"goodput": 72.0}, ["rate: goodput 0.80 of the best"]),
        ({"left": 1.0}, ["rate: goodput 0.85 of the best"]),
        ({"admitted p99": 31.0}, ["rate: admitted p99 31.0 s"]),
        ({"refused median": 0.2}, ["rate: refused after 200 ms"]),
        ({"statuses": {"200": 1, "504": 1}}, ["rate: {'200': 1, '504': 1}"]),
        ({"obedient": 0}, ["rate: who obeyed Retry-After did not get through"]),
    ],
)
def test_what_must_not_happen_is_a_fault(change: dict[str, Any], words: list[str]) -> None:
    assert faults([OVERLOAD | change], [FLOOD]) == words
    assert faults([OVERLOAD], [FLOOD | {"good": 0.5}]) == ["rate: 0.50 good"]


def test_tables_have_a_row_for_each() -> None:
    first, second = tables([OVERLOAD, OVERLOAD], [FLOOD])
    assert first.count("86/s (86%)") == 2
    assert [cell.strip() for cell in first.splitlines()[2].split("|")[5:7]] == ["10%", "95%"]
    assert "1 to 2 MB" in first
    assert second.count("100.0%") == 1


async def test_its_client_takes_answers_and_refusals_and_keeps_its_connections() -> None:
    settings = GatewaySettings(max_in_flight=1, max_queue_seconds=1e-9)
    async with running(settings) as (found, _):
        clients = Clients(found.url, "rate")
        assert (await clients.ask()).status == 200
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(clients.ask())
        await found.engine.reached.wait()
        asked = await clients.open(500, time.monotonic() + 0.5)
        assert asked > 50
        assert [reply.status for reply in clients.replies] == [200, *[429] * asked]
        found.engine.gate.set()
        assert (await first).status == 200
        await clients.closed(1, time.monotonic() + 0.2)
        assert clients.replies[-1].status == 200
        assert all(bool(reply.retry_after) == (reply.status == 429) for reply in clients.replies)
        clients.close()
        found.server.should_exit = True
