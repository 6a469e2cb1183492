"""Logs: a line of JSON each, with the request's ids, and nothing of what was asked or answered.

Errors' messages can quote a client's text. They, and exceptions' own words, are written at level
``debug`` only; at other levels a traceback has its places and the exception's class.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType

from pythonjsonlogger.msgspec import MsgspecFormatter

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def set_up(level: str) -> None:
    """Send all of this process's logs, warnings included, to standard error.

    Args:
        level: the lowest that is written: ``debug``, ``info``, ``warning`` or ``error``.
    """
    # Python's own advice where lines are many ("Optimization" in its logging guide): no line here
    # tells the place in the code, the thread or the process.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(quotes=level == "debug"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)


class Lines(MsgspecFormatter):
    """Log records as JSON.

    Args:
        quotes: also write exceptions' own words.
    """

    def __init__(self, quotes: bool) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="time",
        )
        self._quotes = quotes

    def formatException(self, ei: _ExcInfo) -> str:
        if self._quotes or ei[0] is None:
            return logging.Formatter.formatException(self, ei)
        return "".join(traceback.format_tb(ei[2])) + ei[0].__qualname__
