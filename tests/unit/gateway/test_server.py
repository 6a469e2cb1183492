"""A stop in order: nothing that was admitted is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvicorn

from loadtests.service import free_port
from serving.gateway import server as servers
from serving.gateway.app import create_app
from serving.gateway.server import Drain, Server
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine, factory

RATE = "/gen/routine/rate"
LINGER_SECONDS = 0.3


class Running:
    """A server in this process, and a client of it."""

    ended: asyncio.Task[None]

    def __init__(self, engine: FakeEngine, drain_seconds: float) -> None:
        self.engine, port, drain = engine, free_port(), Drain()
        settings = GatewaySettings(drain_seconds=drain_seconds)
        app = create_app(settings, factory(engine), drain=drain)
        config = uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1)
        self.server = Server(config, drain, settings)
        self.url = f"http://127.0.0.1:{port}"

    async def status(self, session: aiohttp.ClientSession, path: str) -> tuple[int, str | None]:
        """Status, and what is to become of the connection."""
        async with (
            session.get(path) if path == "/readyz" else session.post(path, json=GOOD)
        ) as response:
            await response.read()
            return response.status, response.headers.get("connection")


@asynccontextmanager
async def running(
    drain_seconds: float = 30,
) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    found = Running(FakeEngine(), drain_seconds)
    found.ended = asyncio.create_task(found.server.serve())
    async with aiohttp.ClientSession(found.url) as session:
        for _ in range(500):
            await asyncio.sleep(0.01)
            if found.server.started and (await found.status(session, "/readyz"))[0] == 200:
                break
        yield found, session
        await asyncio.wait_for(found.ended, 10)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LINGER_SECONDS", LINGER_SECONDS)


async def test_what_was_sent_before_is_answered_and_what_comes_after_goes_elsewhere() -> None:
    async with running() as (found, session):
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
    async with running() as (found, session):
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
    async with running(drain_seconds=1) as (found, session):
        found.engine.gate = asyncio.Event()
        first = asyncio.create_task(found.status(session, RATE))
        await found.engine.reached.wait()
        found.server.handle_exit(signal.SIGTERM, None)
        assert await asyncio.wait_for(first, 5) == (503, "close")
