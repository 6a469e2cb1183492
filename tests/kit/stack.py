"""Starts the whole service as a user would, and finds processes it leaves behind."""

import os
import signal
import subprocess
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from loadtests.service import ROOT, STOP_SECONDS, own_ports, wait_answer
from tests.kit.waiting import wait_for

MARK = "ROUTINE_TEST_STACK"


ENGINE_KEY = "the engine's"


@dataclass
class Stack:
    """``make serve`` on its own ports. Every process it starts has ``mark`` in its environment."""

    process: subprocess.Popen[bytes]
    url: str
    engine_url: str
    log: Path
    mark: str
    sessions: set[int] = field(default_factory=set)

    @classmethod
    def start(cls, log: Path, folder: Path = ROOT, target: str = "serve", **variables: str) -> Self:
        """Run ``make target`` in ``folder``, with ``variables`` added to the environment."""
        mark = uuid.uuid4().hex
        environment, url, engine_url = own_ports()
        environment |= {MARK: mark, "VLLM_API_KEY": ENGINE_KEY, **variables}
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["make", target],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, url, engine_url, log, mark)

    def wait_ready(self) -> float:
        """Wait until /readyz returns 200; return the seconds waited."""
        waited = wait_answer(f"{self.url}/readyz", self.process, self.log)
        self.processes()  # record sessions while every process still has its parent
        return waited

    def processes(self) -> dict[int, str]:
        """Return this stack's running processes: process ID to command line.

        Processes are identified by the mark in their environment. vLLM's children overwrite their
        environment with a title, so all processes in a marked process's session count too.
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
        """Return the ID of the only process whose command line contains ``words``."""
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid

    def press_ctrl_c(self) -> None:
        """Send SIGINT to the process group, as a terminal does on Ctrl+C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_stopped(self) -> int:
        """Wait until no process of the stack is running; return the exit code of ``make``."""
        code = self.process.wait(timeout=STOP_SECONDS)
        wait_for(lambda: not self.processes(), STOP_SECONDS, self.processes)
        return code

    def kill(self) -> None:
        """Kill all processes that a failed test left behind."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS)
