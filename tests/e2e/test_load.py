"""Load tests with the real Locust: against the service, and against servers that misbehave."""

import asyncio
import csv
import json
import math
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from loadtests.service import ROOT, free_port, served
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.kit.asking import capacity
from tests.kit.exposition import scrape
from tests.kit.stack import Stack
from tests.kit.waiting import wait_for

LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/load/locustfile.py"]
ROUTES = {*(f"/gen/routine/{name}" for name in TASKS), "/v1/completions"}


def load(url: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Locust; its CSV files go to ``out``."""
    return subprocess.run(
        [*LOCUST, "--headless", "--host", url, "--csv", str(out / "locust"), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def answers(url: str) -> Counter[str]:
    """Requests that the gateway answered with 200, by route."""
    found: Counter[str] = Counter()
    for (name, labels), value in scrape(url).items():
        facts = dict(labels)
        if name == "routine_http_request_duration_seconds_count" and facts["method"] == "POST":
            found[facts["route"]] += int(value) if facts["status"] == "200" else 0
    return found


def counted(out: Path) -> tuple[int, int]:
    """Requests that Locust counted, and those of them that failed."""
    with (out / "locust_stats.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["Type"] == "POST"]
    requests, failures = (
        sum(int(row[f"{name} Count"]) for row in rows) for name in ("Request", "Failure")
    )
    return requests, failures


def test_what_locust_counts_is_what_the_gateway_counted(stack: Stack, tmp_path: Path) -> None:
    """On two processes, with clients that leave and streams."""
    while True:
        before = answers(stack.url)
        done = load(
            stack.url, tmp_path, "-t", "12s", "-u", "6", "--processes", "2", "--leave", "0.1",
            "--deadline", "10", "--csv-full-history", "--html", str(tmp_path / "report.html"),
        )  # fmt: skip
        # The machine let one of its processes stand still: what that had counted is lost.
        if "failed to send heartbeat" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    answered = answers(stack.url) - before
    assert set(answered) == ROUTES
    requests, failures = counted(tmp_path)
    assert failures == 0
    # Whoever leaves may have been answered just before; nobody else may be missing.
    left = sum(answered.values()) - requests
    assert 0 <= left < 0.1 * requests + 5 * math.sqrt(requests)
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "first token" in report
    summary = subprocess.run(
        [sys.executable, "-m", "loadtests.load.summary", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(route in summary.stdout for route in ROUTES)


def test_arrivals_keep_their_rate(stack: Stack, tmp_path: Path) -> None:
    rate, seconds = max(1, int(asyncio.run(capacity(stack.url)) / 4)), 10
    done = load(
        stack.url, tmp_path, "--arrivals", "-u", str(rate), "-r", str(rate), "-t", f"{seconds}s",
        "--leave", "0", "--deadline", "30", "RateClient",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = rate * seconds
    # On average so many, less what comes while users start.
    assert 0.6 * asked - 3 * math.sqrt(asked) < counted(tmp_path)[0] < 1.4 * asked + 10


def test_a_broken_limit_is_an_exit_code(stack: Stack, tmp_path: Path) -> None:
    done = load(stack.url, tmp_path, "-t", "4s", "-u", "2", "--max-p95", "1")
    assert done.returncode == 1
    assert "load: p95 is" in done.stderr


def test_stairs_go_up_to_the_users_that_are_asked_for(stack: Stack, tmp_path: Path) -> None:
    done = subprocess.run(
        [*LOCUST[:-1], "loadtests/load/locustfile.py,loadtests/load/stairs.py", "--headless",
         "--host", stack.url, "-u", "8", "-t", "16s", "--csv", str(tmp_path / "locust"),
         "--max-failed", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "locust_stats_history.csv").open(encoding="utf-8") as file:
        users = {int(row["User Count"]) for row in csv.DictReader(file)}
    assert set(range(1, 9)) <= users <= set(range(9))


def test_locust_s_own_page_sets_the_load(stack: Stack, tmp_path: Path) -> None:
    before = answers(stack.url)
    port = str(free_port())
    page, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    command = [*LOCUST, "--host", stack.url, "--web-host", "127.0.0.1", "--web-port", port]
    with served(command, page, log) as running:
        form = f"user_count=4&spawn_rate=4&host={stack.url}".encode()
        urllib.request.urlopen(f"{page}/swarm", form, timeout=5).close()
        wait_for(lambda: sum((answers(stack.url) - before).values()) > 10)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 0, log.read_text()


Handler = Callable[[], web.Response]


@contextmanager
def server(rate_answer: Handler) -> Iterator[str]:
    """Something that looks like the gateway and answers Task 1 as it is told."""
    loop = asyncio.new_event_loop()
    urls: list[str] = []
    ready, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async def answer(_: web.Request) -> web.Response:
            return rate_answer()

        async def ok(_: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": name} for name in TASKS]})

        app = web.Application()
        app.add_routes([web.get("/readyz", ok), web.get("/v1/models", ok)])
        app.add_routes([web.post("/gen/routine/rate", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


def right() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(rate.OUTPUT.text(TASKS["rate"].example_answer))
    return answer


OPTIONS = ("-t", "2s", "-u", "2", "--leave", "0", "RateClient")


@pytest.mark.parametrize("text", [json.dumps(right() | {"deloading_rate": 35}), "{}", "no JSON"])
def test_an_answer_that_contradicts_itself_or_is_none_is_wrong(text: str, tmp_path: Path) -> None:
    with server(lambda: web.Response(text=text)) as url:
        done = load(url, tmp_path, *OPTIONS, "--max-failed", "1")
    assert done.returncode == 1
    assert "answers were wrong" in done.stderr
    requests, failures = counted(tmp_path)
    assert requests == failures > 0


def test_clients_wait_as_long_as_they_are_told(tmp_path: Path) -> None:
    def answer() -> web.Response:
        return web.json_response({"error": {}}, status=429, headers={"retry-after": "1"})

    with server(answer) as url:
        done = load(url, tmp_path, *OPTIONS, "-u", "1", "-t", "4s")
    assert done.returncode == 1
    assert "requests failed" in done.stderr
    assert 2 <= counted(tmp_path)[0] <= 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--leave", "1.5"], "not a share"),
        (["--deadline", "0"], "not above 0"),
        (["--host", f"http://127.0.0.1:{free_port()}"], "make serve"),
    ],
)
def test_options_that_make_no_sense_end_with_2(
    options: list[str], words: str, tmp_path: Path
) -> None:
    done = load("nowhere", tmp_path, *OPTIONS, *options)
    assert done.returncode == 2
    assert words in done.stderr
