"""Starts the whole service as a user does, and looks for what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
MARK = "ROUTINE_TEST_STACK"
READY_SECONDS = 600
STOP_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds until ``url`` answers 200; ``process``, which writes ``log``, must stay alive."""
    start = time.monotonic()
    while True:
        waited = time.monotonic() - start
        assert process.poll() is None, f"ended early:\n{log.read_text()[-5000:]}"
        assert waited < READY_SECONDS, f"not ready:\n{log.read_text()[-5000:]}"
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
    """A server that has begun to answer, until the block ends; then its children end too.

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


@dataclass
class Stack:
    """``make serve`` on its own ports; every process it starts carries ``mark``."""

    process: subprocess.Popen[bytes]
    url: str
    engine_url: str
    log: Path
    mark: str
    sessions: set[int] = field(default_factory=set)

    @classmethod
    def start(
        cls, log: Path, folder: Path = ROOT, target: str = "serve", **variables: str
    ) -> Stack:
        """Make ``target`` of what is in ``folder``; ``variables`` go into the environment."""
        mark, port, engine_port = uuid.uuid4().hex, free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        environment |= {"PORT": str(port), "ENGINE_PORT": str(engine_port), MARK: mark}
        environment |= {"LOG": "json", **variables}
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["make", target],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url, engine_url = (f"http://127.0.0.1:{environment[p]}" for p in ("PORT", "ENGINE_PORT"))
        return cls(process, url, engine_url, log, mark)

    def wait_ready(self) -> float:
        """Seconds until /readyz answers 200."""
        waited = wait_answer(f"{self.url}/readyz", self.process, self.log)
        self.processes()  # learn the sessions while every process still has its parent
        return waited

    def processes(self) -> dict[int, str]:
        """What runs of this stack: process id to command line.

        Processes are known by their environment's mark. vLLM's children overwrite their environment
        with a title, so whatever shares a session with a marked process belongs to it too.
        """
        running = list(psutil.process_iter(["pid", "cmdline", "environ"]))
        marked = [p.pid for p in running if (p.info["environ"] or {}).get(MARK) == self.mark]
        for pid in marked:
            with suppress(ProcessLookupError):
                self.sessions.add(os.getsid(pid))
        found = {}
        for process in running:
            with suppress(ProcessLookupError):
                if process.pid in marked or os.getsid(process.pid) in self.sessions:
                    found[process.pid] = " ".join(process.info["cmdline"] or [])
        return found

    def pid_of(self, words: str) -> int:
        """The one process whose command line has ``words``."""
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid

    def memory(self) -> int:
        """Bytes that its processes take; what several share counts once."""
        found = 0
        for pid in self.processes():
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(pid).memory_full_info().pss
        return found

    def press_ctrl_c(self) -> None:
        """SIGINT to the terminal's foreground group, as a keyboard sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_stopped(self) -> int:
        """The exit code of ``make``, once nothing of the stack runs any more."""
        code = self.process.wait(timeout=STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)
        return code

    def kill(self) -> None:
        """Clear away whatever a failed test left."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS)
