"""Starts servers to measure, and waits until they answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
READY_SECONDS = 600
STOP_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds until ``url`` answers 200.

    Raises:
        RuntimeError: ``process`` ended, or took too long; the message has the end of ``log``.
    """
    start = time.monotonic()
    while True:
        waited = time.monotonic() - start
        if process.poll() is not None or waited > READY_SECONDS:
            raise RuntimeError(f"{url} does not answer:\n{log.read_text()[-5000:]}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return waited
        except OSError:
            time.sleep(0.2)


@contextmanager
def served(
    command: Sequence[str],
    ready: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that has begun to answer, until the block ends; then its group ends too.

    Args:
        command: what starts it.
        ready: an address that answers 200 once it is.
        log: file for its output.
        environment: all of it; None for this process's own.
        folder: where it starts.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_answer(ready, process, log)
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGCONT):  # it may be stopped
            _signal(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(leader: subprocess.Popen[bytes], number: int) -> None:
    """To all of its group, if any is left."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def family(pid: int) -> list[psutil.Process]:
    """A process and its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def memory(pid: int) -> int:
    """Bytes that a process and its children take; what several share counts once."""
    found = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found
