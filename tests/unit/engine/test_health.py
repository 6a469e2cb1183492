"""The health check against an engine that makes a step only where it is asked to."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from serving.engine.health import NoProgress, check
from serving.metrics import ENGINE_STEPS


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


def test_those_without_a_step_are_named() -> None:
    with pytest.raises(NoProgress, match=r"^no step of engine core 0, 2 in 1 s$"):
        asyncio.run(checked(3, {"0", "2"}))
