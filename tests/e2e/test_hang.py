"""An engine core that stands still while its API server answers health checks."""

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD
from tests.kit.stack import Stack

RATE = "/gen/routine/rate"
NOTICED_SECONDS, RECOVERED_SECONDS = 10, 5
DEADLINE_MS = 3000


async def wait_status(session: aiohttp.ClientSession, status: int, seconds: float) -> float:
    """Wait until /readyz has this status; return the seconds waited."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        async with session.get("/readyz") as response:
            if response.status == status:
                return time.monotonic() - start
        await asyncio.sleep(0.1)
    raise AssertionError(f"/readyz is not {status} after {seconds} s")


async def ask(session: aiohttp.ClientSession) -> tuple[int, str, float]:
    """Status, error code and seconds of a request with a deadline."""
    start = time.monotonic()
    headers = {"x-request-timeout-ms": str(DEADLINE_MS)}
    async with session.post(RATE, json=GOOD, headers=headers) as response:
        answer = await response.json()
        code = answer["error"]["code"] if "error" in answer else ""
        return response.status, code, time.monotonic() - start


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_hung_core_is_noticed_waited_for_by_nobody_and_taken_back(
    stack: Stack, is_busy: bool
) -> None:
    core = stack.pid_of("EngineCore")
    async with aiohttp.ClientSession(stack.url) as session:
        assert (await ask(session))[0] == 200
        os.kill(core, signal.SIGSTOP)
        try:
            caught = [asyncio.create_task(ask(session)) for _ in range(8 * is_busy)]
            await wait_status(session, 503, NOTICED_SECONDS)
            for status, code, seconds in await asyncio.gather(*caught):
                assert (status, code) == (504, "deadline_exceeded")
                assert seconds < DEADLINE_MS / 1000 + 1
            status, code, seconds = await ask(session)
            assert (status, code) == (503, "engine_unavailable")
            assert seconds < 1
            await asyncio.sleep(GatewaySettings().stall_seconds)
            assert (await ask(session))[0] == 503
        finally:
            os.kill(core, signal.SIGCONT)
        await wait_status(session, 200, RECOVERED_SECONDS)
        assert (await ask(session))[0] == 200
