"""Broken HTTP against the real gateway and engine. ``make fuzz`` sends a hundred thousand cases."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from loadtests.service import own_ports, served
from tests.kit.asking import ask_all
from tests.kit.bad_requests import ROUTES
from tests.kit.http_fuzz import fuzz
from tests.kit.stack import ENGINE_KEY, Stack

CASES = int(os.environ.get("FUZZ_CASES", "3000"))
SEED = os.environ.get("FUZZ_SEED", "531")
WARM_UP = 2000
MOST_GROWTH = 16 * 2**20
"""Bytes that the gateway may grow by after a warm-up, of fragments."""


@pytest.mark.timeout(3600)
async def test_broken_http_harms_nobody(stack: Stack, tmp_path: Path) -> None:
    environment, url, _ = own_ports()
    environment |= {
        "ENGINE_URL": stack.engine_url,
        "VLLM_API_KEY": ENGINE_KEY,
        "GATEWAY_REQUEST_SECONDS": "0.5",
        "GATEWAY_KEEP_ALIVE_SECONDS": "1",
    }
    log = tmp_path / "log"
    command = [sys.executable, "-m", "serving.gateway"]
    with served(command, f"{url}/readyz", log, environment) as process:
        gateway = psutil.Process(process.pid)
        wrong, _ = await fuzz(url, WARM_UP, f"{SEED} warm up")
        before = gateway.memory_info().rss
        more_wrong, statuses = await fuzz(url, CASES, SEED)
        growth = gateway.memory_info().rss - before
        print(CASES, "cases:", dict(sorted(statuses.items())), growth, "bytes more")
        print(*(wrong | more_wrong).items(), sep="\n")
        assert wrong | more_wrong == {}
        assert {200, 400, 404, 405, 408, 415, 422} <= statuses.keys(), "too few kinds of cases"
        assert growth < MOST_GROWTH
        assert '"level":"ERROR"' not in log.read_text().replace(" ", "")
        asked = [*ROUTES["rate"].examples, *ROUTES["month"].examples]
        assert len(await ask_all(url, asked, 4)) == len(asked)
