"""The gateway's server in this process, in front of a fake engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from loadtests.service import free_port
from serving.gateway.app import create_app
from serving.gateway.server import Drain, Server
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine, factory


class Running:
    """A server, and what a client of it sees."""

    ended: asyncio.Task[None]

    def __init__(self, settings: GatewaySettings) -> None:
        self.engine, self.port, drain = FakeEngine(), free_port(), Drain()
        settings = settings.model_copy(update={"host": "127.0.0.1", "port": self.port})
        app = create_app(settings, factory(self.engine), drain=drain)
        self.server = Server(app, drain, settings)
        scheme = "https" if settings.tls_certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    async def status(self, session: aiohttp.ClientSession, path: str) -> tuple[int, str | None]:
        """Status, and what is to become of the connection."""
        async with (
            session.get(path) if path == "/readyz" else session.post(path, json=GOOD)
        ) as response:
            await response.read()
            return response.status, response.headers.get("connection")


@asynccontextmanager
async def running(
    settings: GatewaySettings,
) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    """Yield a server that is ready; wait until something else has stopped it."""
    found = Running(settings)
    found.ended = asyncio.create_task(found.server.serve())
    any_certificate = aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(found.url, connector=any_certificate) as session:
        for _ in range(500):
            await asyncio.sleep(0.01)
            if found.server.started and (await found.status(session, "/readyz"))[0] == 200:
                break
        yield found, session
        await asyncio.wait_for(found.ended, 10)
