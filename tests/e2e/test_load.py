"""Load tests with the real Locust: against the service, and against servers that misbehave."""

from __future__ import annotations

import asyncio
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

from loadtests.stack import ROOT, Stack, free_port, served
from serving.contract import rate
from serving.contract.tasks import TASKS
from tests.e2e.asking import capacity
from tests.exposition import samples
from tests.waiting import wait_for


def load(url: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "loadtests.load", "--url", url, "--out", str(out), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def answers(url: str) -> Counter[str]:
    """Requests that the gateway answered with 200, by route."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        text = response.read().decode()
    found: Counter[str] = Counter()
    for (name, labels), value in samples(text).items():
        facts = dict(labels)
        if name == "routine_http_request_duration_seconds_count" and facts["method"] == "POST":
            found[facts["route"]] += int(value) if facts["status"] == "200" else 0
    return found


def total(out: Path, what: str) -> int:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return sum(stage[what] for stage in summary["stages"])


def test_what_locust_counts_is_what_the_gateway_counted(stack: Stack, tmp_path: Path) -> None:
    """On two processes, with clients that leave and streams; and it leaves all it promises."""
    before = answers(stack.url)
    done = load(
        stack.url, tmp_path, "--seconds", "12", "--level", "4", "--processes", "2",
        "--leave", "0.1", "--deadline", "10", "--mix", "rate=2,month=1,completions=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answered = answers(stack.url) - before
    assert set(answered) == {"/gen/routine/rate", "/gen/routine/month", "/v1/completions"}
    ours = total(tmp_path, "good") + total(tmp_path, "late")
    left = total(tmp_path, "left")
    told = 0.1 * (ours + left)
    assert abs(left - told) < 5 * math.sqrt(told)
    # Whoever leaves may have been answered just before; nobody else may be missing.
    assert ours <= sum(answered.values()) <= ours + left
    assert total(tmp_path, "wrong") == total(tmp_path, "failed") == 0
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "/v1/completions: first token" in report
    assert (tmp_path / "load.png").stat().st_size > 10_000
    assert "/gen/routine/month" in (tmp_path / "locust_stats.csv").read_text(encoding="utf-8")


def test_an_open_loop_keeps_its_rate(stack: Stack, tmp_path: Path) -> None:
    rate, seconds = max(1, int(asyncio.run(capacity(stack.url)) / 4)), 10
    done = load(
        stack.url, tmp_path, "--open", "--level", str(rate), "--seconds", str(seconds), "--leave",
        "0", "--deadline", "30", "--mix", "rate=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = rate * seconds
    # On average so many, less what comes while users start.
    assert 0.6 * asked - 3 * math.sqrt(asked) < total(tmp_path, "good") < 1.4 * asked + 10


def test_a_broken_limit_is_an_exit_code(stack: Stack, tmp_path: Path) -> None:
    done = load(stack.url, tmp_path, "--seconds", "4", "--level", "2", "--max-p95", "1")
    assert done.returncode == 1
    assert "load: p95 is" in done.stderr


def test_workers_from_elsewhere_join_and_are_counted(stack: Stack, tmp_path: Path) -> None:
    """As they are told to on the command's output; here from the same machine."""
    log, port = tmp_path / "log", str(free_port())
    before = answers(stack.url)
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "loadtests.load", "--url", stack.url, "--out", tmp_path,
             "--remote-workers", "2", "--seconds", "8", "--level", "4", "--mix", "rate=1",
             "--leave", "0", "--deadline", "10"],
            cwd=ROOT, stdout=output, stderr=output,
            env={**os.environ, "LOCUST_MASTER_BIND_PORT": port},
        )  # fmt: skip
    wait_for(lambda: "--master-host" in log.read_text())
    said = log.read_text().splitlines()[1].replace(".venv/bin/python", sys.executable)
    worker = f"{said.rpartition(' ')[0]} 127.0.0.1 --master-port {port}"
    workers = [
        subprocess.Popen(worker, shell=True, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert running.wait(120) == 0, log.read_text()
    assert [process.wait(30) for process in workers] == [0, 0]
    assert total(tmp_path, "good") == sum((answers(stack.url) - before).values()) > 10


def test_locust_s_own_page_sets_the_load_and_ctrl_c_counts(stack: Stack, tmp_path: Path) -> None:
    before = answers(stack.url)
    page, log = f"http://127.0.0.1:{free_port()}", tmp_path / "log"
    command = [sys.executable, "-m", "loadtests.load", "--web", "--url", stack.url]
    port = {"LOCUST_WEB_PORT": page.rpartition(":")[2]}
    with served([*command, "--out", str(tmp_path)], page, log, {**os.environ, **port}) as running:
        form = f"user_count=4&spawn_rate=4&host={stack.url}".encode()
        urllib.request.urlopen(f"{page}/swarm", form, timeout=5).close()
        wait_for(lambda: sum((answers(stack.url) - before).values()) > 10)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 0, log.read_text()
    assert f"Locust's page: {page};" in log.read_text()
    assert total(tmp_path, "good") > 10
    assert total(tmp_path, "wrong") == total(tmp_path, "broke") == 0


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
    answer: dict[str, Any] = json.loads(rate.OUTPUT.text(TASKS["rate"].worked))
    return answer


OPTIONS = ("--mix", "rate=1", "--seconds", "2", "--level", "2", "--leave", "0")


@pytest.mark.parametrize("text", [json.dumps(right() | {"deloading_rate": 35}), "{}", "no JSON"])
def test_an_answer_that_contradicts_itself_or_is_none_is_wrong(text: str, tmp_path: Path) -> None:
    with server(lambda: web.Response(text=text)) as url:
        done = load(url, tmp_path, *OPTIONS)
    assert done.returncode == 1
    assert "answers were wrong" in done.stderr
    assert total(tmp_path, "good") == 0


def test_clients_wait_as_long_as_they_are_told(tmp_path: Path) -> None:
    asked: list[float] = []

    def answer() -> web.Response:
        asked.append(0)
        if len(asked) % 2:
            return web.json_response({"error": {}}, status=429, headers={"retry-after": "1"})
        return web.json_response(right())

    with server(answer) as url:
        done = load(url, tmp_path, *OPTIONS, "--level", "1")
    assert done.returncode == 0, done.stderr
    good, waits = total(tmp_path, "good"), total(tmp_path, "told_to_wait")
    assert 1 <= good <= 4  # each took a second
    assert waits in (good, good + 1)


def test_a_server_that_fails_breaks_the_limit(tmp_path: Path) -> None:
    with server(lambda: web.Response(status=502)) as url:
        done = load(url, tmp_path, *OPTIONS)
    assert done.returncode == 1
    assert "requests failed" in done.stderr
