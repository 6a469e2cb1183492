"""A stop in order: nothing that was admitted is lost."""

import asyncio
import signal

import pytest

from serving.gateway import server as servers
from serving.gateway.settings import GatewaySettings
from tests.unit.gateway.running import running

RATE = "/gen/routine/rate"
LINGER_SECONDS = 0.3


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LINGER_SECONDS", LINGER_SECONDS)


async def test_what_was_sent_before_is_answered_and_what_comes_after_goes_elsewhere() -> None:
    async with running(GatewaySettings()) as (found, session):
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(found.status(session, RATE))
        await found.engine.reached.wait()
        found.server.handle_exit(signal.SIGTERM, None)
        await asyncio.sleep(0)
        assert await found.status(session, "/readyz") == (503, "close")
        late = asyncio.create_task(found.status(session, RATE))  # nobody could know yet
        await asyncio.sleep(2 * LINGER_SECONDS)
        assert await found.status(session, RATE) == (503, "close")
        assert not first.done()
        found.engine.gate.set()
        assert (await first)[0] == 200
        assert await late == (200, "close")


async def test_a_second_signal_stops_at_once() -> None:
    async with running(GatewaySettings()) as (found, session):
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(found.status(session, RATE))
        await found.engine.reached.wait()
        start = asyncio.get_running_loop().time()
        found.server.handle_exit(signal.SIGINT, None)
        found.server.handle_exit(signal.SIGINT, None)
        await found.ended
        assert asyncio.get_running_loop().time() - start < 2 * LINGER_SECONDS
        first.cancel()


async def test_what_does_not_end_in_time_is_cut_off() -> None:
    async with running(GatewaySettings(drain_seconds=1)) as (found, session):
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(found.status(session, RATE))
        await found.engine.reached.wait()
        found.server.handle_exit(signal.SIGTERM, None)
        assert await asyncio.wait_for(first, 5) == (503, "close")
