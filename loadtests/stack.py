"""Starts the whole service as a user does, and looks for what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = "ROUTINE_TEST_STACK"
READY_SECONDS = 600
STOP_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Stack:
    """``make serve`` on its own ports; every process it starts carries ``mark``."""

    process: subprocess.Popen[bytes]
    url: str
    engine_url: str
    log: Path
    mark: str

    @classmethod
    def start(cls, log: Path, folder: Path = ROOT, **variables: str) -> Stack:
        """Start what is in ``folder``; ``variables`` go into the environment."""
        mark, port, engine_port = uuid.uuid4().hex, free_port(), free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        environment |= {"PORT": str(port), "ENGINE_PORT": str(engine_port), MARK: mark, **variables}
        process = subprocess.Popen(
            ["make", "serve"],
            cwd=folder,
            env=environment,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url, engine_url = (f"http://127.0.0.1:{environment[p]}" for p in ("PORT", "ENGINE_PORT"))
        return cls(process, url, engine_url, log, mark)

    def wait_ready(self) -> float:
        """Seconds until /readyz answers 200."""
        start = time.monotonic()
        while True:
            waited = time.monotonic() - start
            assert self.process.poll() is None, f"ended early:\n{self.log.read_text()[-5000:]}"
            assert waited < READY_SECONDS, f"not ready:\n{self.log.read_text()[-5000:]}"
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=2).close()
                return waited
            except OSError:
                time.sleep(0.2)

    def processes(self) -> dict[int, str]:
        """What runs of this stack: process id to command line."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = command
            except OSError:
                continue
        return found

    def pid_of(self, words: str) -> int:
        """The one process whose command line has ``words``."""
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid

    def press_ctrl_c(self) -> None:
        """SIGINT to the terminal's foreground group, as a keyboard sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_stopped(self) -> int:
        """The exit code of ``make``, once nothing of the stack runs any more."""
        code = self.process.wait(timeout=STOP_SECONDS)
        deadline = time.monotonic() + 5
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)
        return code

    def kill(self) -> None:
        """Clear away whatever a failed test left."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS)
