"""A gateway of several processes, without an engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from loadtests.stack import ROOT, free_port
from tests.exposition import Samples, samples
from tests.waiting import wait_for


@contextmanager
def gateway(
    folder: Path, workers: int, **more: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A gateway of several processes, without an engine."""
    port = free_port()
    variables = {"PORT": str(port), "ENGINE_PORT": str(free_port()), "TMPDIR": str(folder), **more}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.gateway"],
            cwd=ROOT,
            env={**os.environ, **variables, "GATEWAY_WORKERS": str(workers)},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def wait_for_workers(folder: Path, number: int) -> None:
    """Wait until so many have begun to work, since the start."""
    wait_for(lambda: (folder / "log").read_text().count("waiting for the engine") >= number)


def test_several_workers_are_counted_together(tmp_path: Path) -> None:
    """Counters outlive a worker that is killed; its gauges do not."""

    def get(url: str) -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body.decode()

    def scrape() -> Samples:
        return samples(get(f"{url}/metrics"))

    def counted(workers: int) -> Samples:
        """The metrics, once so many workers are counted."""

        def are_there() -> bool:
            with suppress(OSError):
                return scrape().get(("routine_workers", ())) == workers
            return False

        wait_for(are_there)
        return scrape()

    alive = (
        "routine_http_request_duration_seconds_count",
        (("method", "GET"), ("route", "/healthz"), ("status", "200")),
    )
    with gateway(tmp_path, workers=2) as (url, process):
        found = counted(2)
        memory = found[("routine_resident_memory_bytes", ())]
        assert found[("routine_in_flight_limit_requests", ())] == 256
        assert found[("routine_ready", ())] == 0
        assert sum(name == "routine_build_info" for name, _ in found) == 1
        for _ in range(40):
            get(f"{url}/healthz")
        assert scrape()[alive] == 40
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()
        wait_for_workers(tmp_path, 3)  # the first two, and the killed one's successor
        found = counted(2)
        assert found[("routine_worker_starts_total", ())] == 3
        said = [line for line in (tmp_path / "log").read_text().splitlines() if " died" in line]
        assert [json.loads(line)["level"] for line in said] == ["INFO"]
        assert found[alive] == 40
        assert found[("routine_resident_memory_bytes", ())] < 1.5 * memory
        assert found[("routine_in_flight_limit_requests", ())] == 256
        children = psutil.Process(process.pid).children(recursive=True)
    _, left = psutil.wait_procs(children, timeout=60)
    assert left == []
    assert not list(tmp_path.glob("routine-metrics-*"))


def test_workers_do_not_outlive_a_gateway_that_is_killed(tmp_path: Path) -> None:
    with gateway(tmp_path, workers=2) as (_, process):
        wait_for_workers(tmp_path, 2)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, left = psutil.wait_procs(children, timeout=60)
    assert left == []


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_a_folder_that_the_environment_names_is_left_alone(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with gateway(tmp_path, workers=1, **{name: str(theirs)}) as (url, _):
        wait_for_workers(tmp_path, 1)
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            assert b"\nroutine_workers 1.0\n" in response.read()
    assert not list(theirs.iterdir())
    assert not list(tmp_path.glob("routine-metrics-*"))
