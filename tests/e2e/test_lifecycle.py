"""Starting, stopping, and what happens when a part dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.stack import ROOT, Stack, free_port
from tests.bad_requests import GOOD

RATE = "/gen/routine/rate"


def post(url: str) -> tuple[int, float, str]:
    """Status, seconds and body; status 0 where nothing listens."""
    import json
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        url + RATE, json.dumps(GOOD).encode(), {"content-type": "application/json"}
    )
    start = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError:
        status, body = 0, b""
    return status, time.monotonic() - start, body.decode()


@pytest.mark.parametrize("victim", ["api_server", "EngineCore"])
def test_a_killed_engine_gives_503_and_then_a_clean_stop(victim: str, fresh_stack: Stack) -> None:
    assert post(fresh_stack.url)[0] == 200
    os.kill(fresh_stack.pid_of(victim), signal.SIGKILL)
    deadline, statuses = time.monotonic() + 30, set()
    while fresh_stack.process.poll() is None:
        assert time.monotonic() < deadline, "half a service is still running"
        status, seconds, body = post(fresh_stack.url)
        statuses.add(status)
        if status == 503:
            assert seconds < 1
            assert '"engine_unavailable"' in body
    assert statuses <= {0, 200, 503}, statuses
    assert fresh_stack.wait_stopped() != 0


def test_a_killed_gateway_stops_the_engine_too_and_sigterm_stops_everything(
    fresh_stack: Stack,
) -> None:
    os.kill(fresh_stack.pid_of("serving.gateway"), signal.SIGKILL)
    assert fresh_stack.wait_stopped() != 0


def test_sigterm_stops_everything(tmp_path: Path) -> None:
    stack = Stack.start(tmp_path / "serve.log")
    try:
        deadline = time.monotonic() + 60
        while "loading" not in stack.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        stack.process.send_signal(signal.SIGTERM)
        stack.wait_stopped()
    finally:
        stack.kill()


@pytest.mark.parametrize("variable", ["PORT", "ENGINE_PORT"])
def test_a_port_that_is_taken_ends_the_start_with_one_line(variable: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = Stack.start(tmp_path / "log", ROOT, **{variable: str(taken.getsockname()[1])})
        try:
            assert stack.wait_stopped() != 0
        finally:
            stack.kill()
    lines = [line for line in stack.log.read_text().splitlines() if "cannot be used" in line]
    assert len(lines) == 1
    assert f"set {variable}" in lines[0]


def test_without_an_engine_the_gateway_answers_503_within_a_second(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.gateway"],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), "ENGINE_PORT": str(free_port())},
    )
    try:
        deadline = time.monotonic() + 30
        while (result := post(url))[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        status, seconds, body = result
        assert status == 503
        assert seconds < 1
        assert '"engine_unavailable"' in body
    finally:
        process.terminate()
        process.wait(timeout=10)
