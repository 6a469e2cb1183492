"""Starts the whole service as a user does, and looks for what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from loadtests.service import ROOT, STOP_SECONDS, free_port, wait_answer

MARK = "ROUTINE_TEST_STACK"


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
