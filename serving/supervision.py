"""Runs processes side by side under supervisord: restarts what stops, and stops all in order.

A process that stops by itself is restarted, each time after a longer pause; one that cannot be kept
running for a minute, after a few tries, ends all of them. Before the service has been ready once,
nothing is restarted: a wrong setting should end the start.
"""

import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress

from supervisor import events, loggers, states
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

STEADY_SECONDS = 60
"""A process that runs as long has started well: its earlier failures are forgotten."""
TRIES = 3
"""Restarts, one, two and three seconds after a failure, of a process that does not get there."""
STOP_SECONDS = 40
"""Time from SIGTERM to SIGKILL. Longer than GATEWAY_DRAIN_SECONDS and ENGINE_DRAIN_SECONDS."""
SYSTEM = "system"
"""Name of supervisord's own lines."""
_EXITED = re.compile(r"exited: (\S+) \((.*); (?:not )?expected\)")
_SUPERVISORD = """[supervisord]
nodaemon = true
silent = true
logfile = /dev/null
logfile_maxbytes = 0
minfds = 64
minprocs = 1
nocleanup = true
"""
_PROGRAM = """[program:{name}]
command = {command}
environment = PYTHONUNBUFFERED="1"
priority = {priority}
startsecs = {steady}
startretries = {tries}
autorestart = true
stopwaitsecs = {stop}
killasgroup = true
redirect_stderr = true
stdout_logfile = NONE
stdout_events_enabled = true
"""


class _Options(ServerOptions):  # type: ignore[misc]  # supervisor is untyped
    def __init__(self, programs: str, write: Callable[[str, str], None]) -> None:
        super().__init__()
        self._write = write
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(_SUPERVISORD + programs)
            file.flush()
            self.realize(["--configuration", file.name])
        self.first, self.test = True, False  # as supervisord's own main function sets them

    def make_logger(self) -> None:
        self.logger = loggers.getLogger(loggers.LevelsByName.INFO)
        self.logger.addHandler(_Handler(self._write))

    def write_pidfile(self) -> None:
        """Nobody looks for it."""


class _Handler(loggers.Handler):  # type: ignore[misc]
    level = loggers.LevelsByName.INFO

    def __init__(self, write: Callable[[str, str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: loggers.LogRecord) -> None:
        self._write(SYSTEM, str(record.asdict()["message"]).rstrip())


class Supervision(Supervisor):  # type: ignore[misc]
    """Processes that run until a signal, or until one of them cannot be kept running.

    Args:
        modules: Python modules by name. They are started at once, and stopped one after the other,
            the last one first.
        write: called with a process's name and each line of its output.
        tell: called with what users should know.
    """

    def __init__(
        self,
        modules: Mapping[str, str],
        write: Callable[[str, str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._write, self._tell = write, tell
        self._rest = dict.fromkeys(modules, b"")
        self.last = dict.fromkeys(modules, "it wrote nothing")
        """Last line of each process."""
        self.was_ready = False
        """Whether the service has been ready; from then on, processes are restarted."""
        self.code = 0
        """Exit code."""
        python = shlex.quote(sys.executable).replace("%", "%%")
        programs = (
            _PROGRAM.format(
                name=name,
                command=f"{python} -m {module}",
                priority=number,
                steady=STEADY_SECONDS,
                tries=TRIES,
                stop=STOP_SECONDS,
            )
            for number, (name, module) in enumerate(modules.items())
        )
        super().__init__(_Options("\n".join(programs), self._line))

    @property
    def is_stopping(self) -> bool:
        return bool(self.options.mood < states.SupervisorStates.RUNNING)

    def main(self) -> int:
        """Run until all processes have stopped; return the exit code."""
        with suppress(asyncore.ExitNow):
            super().main()
        return self.code

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogEvent, self._output)
        events.subscribe(events.ProcessStateEvent, self._changed)
        super().runforever()

    def handle_signal(self) -> None:
        """Stop in order; at once on a second signal."""
        number = self.options.get_signal()
        if number not in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            return
        if self.is_stopping:
            self.kill()
            return
        self._tell(f"{signal.Signals(number).name} received: stopping")
        self._stop(0)

    def kill(self, *names: str) -> None:
        """Kill processes, or all, with those they have started."""
        for name in names or self.process_groups:
            for process in self.process_groups[name].processes.values():
                if process.pid:
                    os.killpg(process.pid, signal.SIGKILL)

    def _stop(self, code: int) -> None:
        self.code = code
        self.options.mood = states.SupervisorStates.SHUTDOWN

    def _output(self, event: events.ProcessLogEvent) -> None:
        name = event.process.config.name
        *lines, self._rest[name] = (self._rest[name] + event.data).split(b"\n")
        for line in lines:
            self._line(name, line.decode("utf-8", "replace").rstrip())

    def _line(self, name: str, line: str) -> None:
        if not line:
            return
        self._write(name, line)
        if name in self.last:
            self.last[name] = line
        elif (exited := _EXITED.fullmatch(line)) and exited[1] in self.last:
            self._tell_exit(exited[1], exited[2])

    def _changed(self, event: events.ProcessStateEvent) -> None:
        """Decide what follows when a process has stopped by itself."""
        if self.is_stopping:
            return
        name = event.process.config.name
        if isinstance(event, events.ProcessStateFatalEvent):
            self._tell(f"{name} cannot be kept running: stopping")
            self._stop(1)
        elif isinstance(event, events.ProcessStateBackoffEvent | events.ProcessStateExitedEvent):
            if rest := self._rest[name]:
                self._rest[name] = b""
                self._line(name, rest.decode("utf-8", "replace"))
            if not self.was_ready:
                self._stop(1)

    def _tell_exit(self, name: str, how: str) -> None:
        what = "" if self.is_stopping else "; starting it again"
        if self.last[name].startswith(f"{name}: "):  # the process has reported it itself
            if what:
                self._tell(f"{name} exited ({how}){what}")
            return
        self._tell(f"{name} exited unexpectedly ({how}){what}; last line: {self.last[name]}")
