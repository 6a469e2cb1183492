"""Runs several processes as a unit: all or none.

If one stops for any reason, the others are stopped too and this process exits with a non-zero code.
Ctrl-C, SIGTERM and a closed terminal stop all; only SIGKILL of this process leaves them running.
Restarts are left to the supervisor (systemd, a container's restart policy).

Output goes to a file. The terminal shows the startup steps, each process's lines that start with
its own name and a colon, which are meant for the user, and warnings.
"""

import json
import os
import shlex
import signal
import sys
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Message, Printer
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.gateway.settings import GatewaySettings
from serving.process import StartError, load
from serving.tasks.registry import TASKS
from serving.terminal import Terminal

POLL_SECONDS = 0.2


class RunSettings(BaseSettings):
    """Read from upper-case environment variables."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    log: str = "serve.log"
    """File for the output of all processes; ``json`` writes it to standard output instead."""


class Lines(Printer):  # type: ignore[misc]  # honcho is untyped
    """Writes all lines to a file, and those meant for the user to the terminal too."""

    def __init__(self, file: TextIO, terminal: Terminal) -> None:
        super().__init__(file)
        self._terminal = terminal
        self._last: dict[str, str] = {}
        """Last line written, by process."""
        self.stopping = threading.Event()
        """Set once any process stops, which stops all."""

    def write(self, message: Message) -> None:
        """Handle a message from honcho: process output, or honcho's own status message."""
        super().write(message)
        data, name = message.data, message.name
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        for line in filter(None, map(str.rstrip, text.splitlines())):
            if name == SYSTEM_PRINTER_NAME:
                self._tell_stop(line)
                continue
            self._last[name] = line
            if line.startswith(f"{name}: "):
                self._terminal.step(line)
            elif warning := _warning(line):
                self._terminal.step(f"{name}: warning: {warning}")

    def _tell_stop(self, line: str) -> None:
        """Report the reason for the shutdown, from the first line about a signal or an exit."""
        name, stopped, code = line.partition(" stopped (rc=")
        if self.stopping.is_set() or not (stopped or line.endswith(" received")):
            return
        self.stopping.set()
        last = self._last.get(name, "it wrote nothing")
        if not stopped:
            self._terminal.step(f"{line}: stopping")
        elif not last.startswith(f"{name}: "):  # otherwise the process has reported it itself
            self._terminal.step(
                f"{name} exited unexpectedly (exit code {code.rstrip(')')}); full log: "
                f"{self.output.name}; last line: {last}"
            )


def _warning(line: str) -> str:
    """Return the message of a JSON warning or error, or "" for other lines and request logs."""
    try:
        entry = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return ""
    warns = entry.get("level") in ("WARNING", "ERROR", "CRITICAL") and "status" not in entry
    return str(entry.get("message", "")) if warns else ""


def together(modules: Mapping[str, str]) -> None:
    """Run Python modules, including the gateway, until one exits. Then stop the others and exit.

    Args:
        modules: Python modules by their name in the log.
    """
    try:
        settings, gateway = load(RunSettings), load(GatewaySettings)
        manager = Manager(None if settings.log == "json" else _printer(settings.log, gateway))
    except StartError as error:
        sys.exit(f"serve: {error}")
    python = shlex.quote(sys.executable)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for name, module in modules.items():
        manager.add_process(name, f"exec {python} -m {module}", env=environment)
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    manager.loop()
    # vLLM's API server exits with 0 when its engine core dies; any exit here is a failure.
    sys.exit(manager.returncode or 1)


def _printer(log: str, gateway: GatewaySettings) -> Lines:
    try:
        file = Path(log).open("w", encoding="utf-8")  # noqa: SIM115 (open until exit)
    except OSError as error:
        raise StartError(f"LOG={log} cannot be written ({error.strerror}): set LOG") from error
    terminal = Terminal(sys.stdout)
    terminal.step(f"starting; log: {log}")
    lines = Lines(file, terminal)
    waiting = threading.Thread(
        target=_tell_ready, args=(gateway, terminal, lines.stopping), daemon=True
    )
    waiting.start()
    return lines


def _tell_ready(gateway: GatewaySettings, terminal: Terminal, stopping: threading.Event) -> None:
    """Wait until the service is ready and print how to use it; return early if it stops."""
    host = "127.0.0.1" if gateway.host in ("0.0.0.0", "::") else gateway.host
    url = f"http://{host}:{gateway.port}"
    for what, address in (
        ("loading the model", f"{gateway.engine}/health"),
        ("trying adapters and constraints", f"{url}/readyz"),
    ):
        while not _answers(address):
            terminal.tick(what)
            if stopping.wait(POLL_SECONDS):
                return
        terminal.step(f"done: {what}")
    terminal.step(f"ready: {url} (API page: {url}/docs). Try:")
    task = next(iter(TASKS.values()))
    body = json.dumps(task.examples[0].model_dump(), ensure_ascii=False)
    json_type = "-H 'content-type: application/json'"
    terminal.line(f"curl {url}/gen/routine/{task.name} {json_type} -d '{body}'")


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True
