"""Runs the service's processes as a unit, and shows the user how it goes.

Output goes to a file. The terminal shows the startup steps, each process's lines that start with
its own name and a colon, which are meant for the user, and warnings. Ctrl-C, SIGTERM and a closed
terminal stop all, the gateway first; only SIGKILL of this process leaves them running.
"""

import json
import os
import secrets
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.engine.health import NoProgress, check
from serving.engine.settings import EngineSettings
from serving.gateway.settings import GatewaySettings
from serving.process import StartError, load
from serving.supervision import Supervision
from serving.tasks.registry import TASKS
from serving.terminal import Terminal

POLL_SECONDS = 0.2
_ANY_CERTIFICATE = ssl._create_unverified_context()  # noqa: S323 (our own process, on this machine)
WATCH_SECONDS = 5
"""Interval of checks once the service is ready."""


class RunSettings(BaseSettings):
    """Read from upper-case environment variables."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    log: str = "serve.log"
    """File for the output of all processes; ``json`` writes it to standard output instead."""
    engine_hang_seconds: float = Field(default=60.0, gt=0)
    """Time that an engine may make no progress before ``make serve`` kills and restarts it."""


class Lines:
    """Writes all lines to a file, and those meant for the user to the terminal too.

    Args:
        file: descriptor that receives all lines, with time and process. When its disk is full
            they are lost: the service is worth more than its log.
        terminal: the user's; None shows nothing.
    """

    def __init__(self, file: int, terminal: Terminal | None) -> None:
        self._file, self._terminal = file, terminal

    def write(self, name: str, line: str) -> None:
        """Handle a line of a process's output."""
        text = f"{time.strftime('%H:%M:%S')} {name:7} | {line}\n"
        with suppress(OSError):
            os.write(self._file, text.encode())
        if line.startswith(f"{name}: "):
            self.tell(line)
        elif warning := _warning(line):
            self.tell(f"{name}: warning: {warning}")

    def tell(self, text: str) -> None:
        """Show a line to the user, with the time."""
        if self._terminal:
            self._terminal.step(text)

    def show(self, text: str) -> None:
        """Show a line to the user, without the time."""
        if self._terminal:
            self._terminal.line(text)

    def tick(self, text: str) -> None:
        """Show the user what is in progress."""
        if self._terminal:
            self._terminal.tick(text)


def _warning(line: str) -> str:
    """Return the message of a JSON warning or error, or "" for other lines and request logs."""
    try:
        entry = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return ""
    warns = entry.get("level") in ("WARNING", "ERROR", "CRITICAL") and "status" not in entry
    return str(entry.get("message", "")) if warns else ""


def together(modules: Mapping[str, str]) -> None:
    """Run Python modules, including the gateway, until a signal or until one cannot be kept
    running. Then exit.

    Args:
        modules: Python modules by their name in the log, the gateway last.
    """
    if not os.environ.get("VLLM_API_KEY"):
        os.environ["VLLM_API_KEY"] = secrets.token_urlsafe(
            32
        )  # the engine serves the gateway alone
    try:
        settings, gateway = load(RunSettings), load(GatewaySettings)
        cores = load(EngineSettings).engine_data_parallel
        lines = _lines(settings.log)
        supervision = Supervision(modules, lines.write, lines.tell)
    except StartError as error:
        sys.exit(f"serve: {error}")
    watch = Watch(supervision, lines, settings, gateway, cores)
    threading.Thread(target=watch.run, daemon=True).start()
    sys.exit(supervision.main())


def _lines(log: str) -> Lines:
    if log == "json":
        return Lines(sys.stdout.fileno(), None)
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError as error:
        raise StartError(f"LOG={log} cannot be written ({error.strerror}): set LOG") from error
    terminal = Terminal(sys.stdout)
    terminal.step(f"starting; log: {log}")
    return Lines(file, terminal)


class Watch:
    """Waits until the service is ready and prints how to use it. Afterwards, kills an engine that
    hangs, for supervisord to start it again.

    Args:
        supervision: the processes.
        lines: where to tell.
        settings: of this run.
        gateway: the gateway's settings.
        cores: engine cores.
    """

    def __init__(
        self,
        supervision: Supervision,
        lines: Lines,
        settings: RunSettings,
        gateway: GatewaySettings,
        cores: int,
    ) -> None:
        self._supervision, self._lines, self._cores = supervision, lines, cores
        self._hang_seconds, self._engine = settings.engine_hang_seconds, gateway.engine
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what to ask, not to bind)
        host = everywhere.get(gateway.host, gateway.host)
        host = f"[{host}]" if ":" in host else host
        self._url = f"{'https' if gateway.tls_certificate else 'http'}://{host}:{gateway.port}"
        self._key_header = " -H 'authorization: Bearer YOUR_KEY'" if gateway.keys else ""
        self._health, self._ready = f"{gateway.engine}/health", f"{self._url}/readyz"

    def run(self) -> None:
        for what, address in (
            ("loading the model", self._health),
            ("trying adapters and constraints", self._ready),
        ):
            while not _answers(address):
                if self._supervision.is_stopping:
                    return
                self._lines.tick(what)
                time.sleep(POLL_SECONDS)
            self._lines.tell(f"done: {what}")
        self._supervision.was_ready = True
        self._lines.tell(f"ready: {self._url} (API page: {self._url}/docs). Try:")
        task = next(iter(TASKS.values()))
        body = json.dumps(task.examples[0].model_dump(), ensure_ascii=False)
        head = "-H 'content-type: application/json'" + self._key_header
        self._lines.show(f"curl {self._url}/gen/routine/{task.name} {head} -d '{body}'")
        if "engine" in self._supervision.last:  # not a cluster, which looks after itself
            self._watch_progress()

    def _watch_progress(self) -> None:
        hung_since, was_ready = 0.0, True
        while not self._supervision.is_stopping:
            time.sleep(WATCH_SECONDS)
            if (is_ready := _answers(self._ready)) and not was_ready:
                self._lines.tell("ready again")
            was_ready = is_ready
            if is_ready or not _answers(self._health) or moves(self._engine, self._cores):
                hung_since = 0.0
                continue
            hung_since = hung_since or time.monotonic()
            if time.monotonic() - hung_since > self._hang_seconds:
                self._lines.tell(f"engine: no progress for {self._hang_seconds:g} s: killing it")
                self._supervision.kill("engine")


def moves(engine: str, cores: int, seconds: float = WATCH_SECONDS) -> bool:
    """Return whether an engine makes progress, or cannot be asked: it has just stopped, which is
    supervisord's business.

    Args:
        engine: its URL.
        cores: engine cores.
        seconds: time to watch them.
    """
    try:
        check(engine, cores, seconds)
    except NoProgress:
        return False
    except OSError:
        pass
    return True


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5, context=_ANY_CERTIFICATE).close()
    except (OSError, HTTPException):
        return False
    return True
