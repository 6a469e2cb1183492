"""The engine's health check, on a real engine: here two copies of the model behind one port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from loadtests.stack import ROOT, free_port, served
from serving.engine.progress import RUNNING, NoProgress, check, cores

LONG = json.dumps({"prompt": ".", "max_tokens": 1500, "ignore_eos": True}).encode()
BOTH = "DP0", "DP1"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The engine's."""
    found = free_port()
    variables = {**os.environ, "ENGINE_PORT": str(found), "ENGINE_DATA_PARALLEL": "2"}
    log = tmp_path_factory.mktemp("engine") / "log"
    command = [sys.executable, "-m", "serving.engine"]
    with served(command, f"http://127.0.0.1:{found}/health", log, variables):
        yield found


@pytest.fixture
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def hanging(port: int, *names: str) -> Iterator[None]:
    """The engine cores of these names stand still."""
    (server,) = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port
                 and c.status == psutil.CONN_LISTEN}  # fmt: skip
    children = psutil.Process(server).children(recursive=True)
    found = [child for child in children if child.cmdline()[0].endswith(names)]
    assert len(found) == len(names)
    for core in found:
        core.suspend()
    yield
    for core in found:
        core.resume()


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Both cores generate until the block ends, and all of it arrives."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(
            f"{url}/v1/completions", LONG, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answers.append(json.load(response)["usage"]["completion_tokens"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not all(core[RUNNING] for core in cores(url).values()):
        time.sleep(0.05)
    yield
    assert not answers
    for thread in threads:
        thread.join()
    assert answers == [1500] * 4


def command(port: int) -> tuple[int, str]:
    """The check as a container runs it: exit code, what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine.progress"],
        cwd=ROOT,
        env={**os.environ, "ENGINE_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_an_idle_engine_gets_on(port: int) -> None:
    assert command(port) == (0, "")


def test_a_busy_engine_gets_on(url: str) -> None:
    with busy(url):
        check(url, 2)


def test_one_core_of_two_that_hangs_with_requests_is_found(port: int, url: str) -> None:
    with busy(url):
        with hanging(port, "DP1"), pytest.raises(NoProgress, match="no step of core 1 in 2 s"):
            check(url, 2)
        check(url, 2)


def test_an_idle_engine_that_hangs_is_found(port: int, url: str) -> None:
    with hanging(port, *BOTH), pytest.raises(NoProgress, match="no step of core 0, 1 in 2 s"):
        check(url, 2)
    check(url, 2)


def test_no_engine_is_one_line() -> None:
    refused = "engine: <urlopen error [Errno 111] Connection refused>\n"
    assert command(free_port()) == (1, refused)
