"""The engine's health check, on a real engine: here two copies of the model behind one port."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from loadtests.service import ROOT, free_port, served
from serving.engine.health import NoProgress, check, steps
from tests.kit.waiting import wait_for

LENGTH = 1000
LONG = json.dumps({"prompt": ".", "max_tokens": LENGTH, "ignore_eos": True}).encode()
CORES = 2


def environment(port: int) -> dict[str, str]:
    return {**os.environ, "ENGINE_PORT": str(port), "ENGINE_DATA_PARALLEL": str(CORES)}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The engine's."""
    found = free_port()
    log = tmp_path_factory.mktemp("engine") / "log"
    command = [sys.executable, "-m", "serving.engine"]
    with served(command, f"http://127.0.0.1:{found}/health", log, environment(found)):
        yield found


@pytest.fixture
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def hanging(port: int, name: str) -> Iterator[None]:
    """The engine core of this name stands still."""
    (server,) = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port
                 and c.status == psutil.CONN_LISTEN}  # fmt: skip
    children = psutil.Process(server).children(recursive=True)
    (core,) = (child for child in children if child.cmdline()[0].endswith(name))
    core.suspend()
    yield
    core.resume()


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Both cores generate, one at least until the block ends, and all of it arrives."""
    answers: list[int] = []

    def ask(core: int) -> None:
        headers = {"content-type": "application/json", "x-data-parallel-rank": str(core)}
        request = urllib.request.Request(f"{url}/v1/completions", LONG, headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            answers.append(json.load(response)["usage"]["completion_tokens"])

    before = steps(url)
    threads = [threading.Thread(target=ask, args=(core,)) for core in range(CORES)]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(steps(url)[core] > before[core] for core in before))
    yield
    assert len(answers) < CORES
    for thread in threads:
        thread.join()
    assert answers == [LENGTH] * CORES


def command(port: int) -> tuple[int, str]:
    """The check as a container runs it: exit code, what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine.health"],
        cwd=ROOT,
        env=environment(port),
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
        check(url, CORES)


def test_one_busy_core_of_two_that_hangs_is_found(port: int, url: str) -> None:
    with busy(url):
        with hanging(port, "DP1"), pytest.raises(NoProgress, match="no step of engine core 1 in 5"):
            check(url, CORES, 5)
        check(url, CORES)


def test_one_idle_core_of_two_that_hangs_is_found(port: int, url: str) -> None:
    with hanging(port, "DP0"), pytest.raises(NoProgress, match="no step of engine core 0 in 5 s"):
        check(url, CORES, 5)
    check(url, CORES)


def test_no_engine_is_one_line() -> None:
    refused = "engine: <urlopen error [Errno 111] Connection refused>\n"
    assert command(free_port()) == (1, refused)
