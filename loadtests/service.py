"""Helpers to start servers and wait until they respond."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).parents[1]
READY_SECONDS = 600
STOP_SECONDS = 30
PORTS = range(15_000, 32_000)
"""Below those that Linux gives to connections, of which Ray makes many before it listens."""
PARTS = {
    "gateway": "-m serving.gateway",
    "API server": "-m serving.engine.serve",
    "core": "EngineCore",
}


class NotServed(RuntimeError):
    """A server exited or timed out before it was ready; the message has the end of its log."""


def free_port() -> int:
    """Return a port that nothing listens to, and that no connection is given meanwhile."""
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def own_ports() -> tuple[dict[str, str], str, str]:
    """Return an environment that starts the service on free ports, logging to standard output, and
    the URLs of its gateway and its engine."""
    port, engine_port = str(free_port()), str(free_port())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    environment |= {"PORT": port, "ENGINE_PORT": engine_port, "LOG": "json"}
    return environment, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{engine_port}"


def wait_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """Wait until ``url`` returns 200; return the seconds waited.

    Raises:
        NotServed: ``process`` exited or timed out.
    """
    start = time.monotonic()
    while True:
        waited = time.monotonic() - start
        if process.poll() is not None or waited > READY_SECONDS:
            raise NotServed(f"{url} does not answer:\n{log.read_text()[-5000:]}")
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
    """Start a server, yield it once it is ready, and stop its process group on exit.

    Args:
        command: command line of the server.
        ready: URL that returns 200 once the server is ready.
        log: file for its output.
        environment: complete environment; None inherits this process's.
        folder: working directory.
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
        for number in (signal.SIGTERM, signal.SIGCONT):  # it may be suspended
            _signal(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
        _signal(process, signal.SIGKILL)
        process.wait()


@contextmanager
def service(environment: Mapping[str, str], url: str) -> Iterator[int]:
    """Start the service; yield its process id.

    Args:
        environment: from ``own_ports``.
        url: its gateway's.
    """
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "serving"]
        with served(command, f"{url}/readyz", Path(folder) / "log", environment) as process:
            yield process.pid


def _signal(leader: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process group, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def part(main: int, name: str) -> int:
    """Return the process id of a part of the service."""
    (pid,) = [p.pid for p in family(main) if PARTS[name] in " ".join(p.cmdline())]
    return pid


def memory(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes, counting shared pages once."""
    found = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found
