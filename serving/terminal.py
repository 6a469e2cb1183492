"""Terminal progress output: one line per step with the seconds since the start, and a running clock
in between. The installer uses it too, so it imports only the standard library."""

import threading
import time
from contextlib import suppress
from typing import TextIO

CLEAR_LINE = "\r\033[K"


class Terminal:
    """Writes to ``output``; the clock runs only on a terminal. Thread-safe."""

    def __init__(self, output: TextIO) -> None:
        self._output, self._is_terminal = output, output.isatty()
        self._start = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def step(self, text: str) -> None:
        """Write a line prefixed with the elapsed time."""
        self.line(f"{self.seconds:7.1f} s  {text}")

    def line(self, text: str) -> None:
        """Write a line without the elapsed time."""
        self._write(f"{text}\n")

    def tick(self, text: str) -> None:
        """Show that ``text`` is still in progress; the next line replaces it."""
        if self._is_terminal:
            self._write(f"{self.seconds:7.1f} s  {text} ...")

    def _write(self, text: str) -> None:
        with self._lock, suppress(OSError):  # the terminal is closed
            self._output.write((CLEAR_LINE if self._is_terminal else "") + text)
            self._output.flush()
