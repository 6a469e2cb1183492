"""What a person at a terminal sees of something slow: a line a step with the seconds since the
start, and a running clock in between. For the installer too, so nothing is imported that needs
installing."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TextIO

CLEAR_LINE = "\r\033[K"


class Terminal:
    """Writes to ``output``; the clock runs only where that is a terminal. Threads may share it."""

    def __init__(self, output: TextIO) -> None:
        self._output, self._is_terminal = output, output.isatty()
        self._start = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def step(self, text: str) -> None:
        """Write a line with the time."""
        self.line(f"{self.seconds:7.1f} s  {text}")

    def line(self, text: str) -> None:
        """Write a line as it is."""
        self._write(f"{text}\n")

    def tick(self, text: str) -> None:
        """Show that ``text`` is still going on; the next line takes its place."""
        if self._is_terminal:
            self._write(f"{self.seconds:7.1f} s  {text} ...")

    def _write(self, text: str) -> None:
        with self._lock, suppress(OSError):  # a closed terminal: nobody reads it
            self._output.write((CLEAR_LINE if self._is_terminal else "") + text)
            self._output.flush()
