"""The health check against an engine that makes a step only where it is asked to."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from serving.engine.health import NoProgress, check
from serving.metrics import ENGINE_STEPS
from serving.together import moves


async def checked(cores: int, hanging: set[str]) -> None:
    """Check an engine of so many cores, of which those do nothing."""
    made = dict.fromkeys(map(str, range(cores)), 5)

    async def metrics(_: web.Request) -> web.Response:
        lines = (f'{ENGINE_STEPS}{{engine="{core}"}} {steps}\n' for core, steps in made.items())
        return web.Response(text="".join(lines))

    async def completions(request: web.Request) -> web.Response:
        core = request.headers["x-data-parallel-rank"]
        if core not in hanging:
            made[core] += 1
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.post("/v1/completions", completions)])
    async with TestServer(app) as server:
        await asyncio.to_thread(check, str(server.make_url("")).rstrip("/"), cores, 1)


def test_each_core_is_asked() -> None:
    asyncio.run(checked(3, set()))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf",
        b"HTTP/1.1 2",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\nhalf",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xff",
        b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_an_engine_that_breaks_off_is_not_one_that_hangs(answer: bytes) -> None:
    """Who watches for a hang must outlive it."""

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        writer.write(answer)
        writer.close()

    async def ask() -> bool:
        async with await asyncio.start_server(breaks_off, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(moves, f"http://127.0.0.1:{port}", 1, 0.2)

    assert asyncio.run(ask())


def test_those_without_a_step_are_named() -> None:
    with pytest.raises(NoProgress, match=r"^no step of engine core 0, 2 in 1 s$"):
        asyncio.run(checked(3, {"0", "2"}))
