"""Starting, stopping, and what happens when a part dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from loadtests.service import ROOT, free_port
from tests.kit.bad_requests import GOOD
from tests.kit.stack import Stack
from tests.kit.waiting import wait_for

RATE = "/gen/routine/rate"
AT_ONCE_SECONDS = 10
"""Much less than the 60 s that the gateway waits for an engine that is there."""


def ask(request: urllib.request.Request) -> tuple[int, str]:
    """Status and body; status 0 where nothing listens."""
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def get(url: str) -> int:
    return ask(urllib.request.Request(url))[0]


def post(url: str) -> tuple[int, float, str]:
    """Status, seconds and body of a rate request."""
    body = json.dumps(GOOD).encode()
    start = time.monotonic()
    status, answer = ask(
        urllib.request.Request(url + RATE, body, {"content-type": "application/json"})
    )
    return status, time.monotonic() - start, answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(number: signal.Signals, tmp_path: Path) -> None:
    stack = Stack.start(tmp_path / "serve.log")
    try:
        if number is signal.SIGTERM:
            stack.wait_ready()
            stack.process.send_signal(number)
        else:  # a closed terminal, while the model loads
            wait_for(lambda: "engine: demo" in stack.log.read_text())
            os.killpg(stack.process.pid, number)
        assert stack.wait_stopped() != 0
    finally:
        stack.kill()


def test_a_lone_gateway_outlives_its_engine_with_503_and_takes_the_next(tmp_path: Path) -> None:
    environment = {**os.environ, "PORT": str(free_port()), "ENGINE_PORT": str(free_port())}
    url = f"http://127.0.0.1:{environment['PORT']}"
    running: list[subprocess.Popen[bytes]] = []

    def run(part: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"serving.{part}"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        running.append(process)
        return process

    try:
        run("gateway")
        wait_for(lambda: post(url)[0] != 0)
        for _ in range(2):
            status, seconds, body = post(url)
            assert status == 503
            assert seconds < AT_ONCE_SECONDS
            assert '"engine_unavailable"' in body
            engine = run("engine")
            wait_for(lambda: get(f"{url}/readyz") == 200)
            assert post(url)[0] == 200
            engine.kill()
            engine.wait()
            wait_for(lambda: get(f"{url}/readyz") == 503)
        assert post(url)[0] == 503
    finally:
        for process in running:
            process.kill()
            process.wait()


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
