"""JSON logs, one record per line, with request ids but without request or answer content.

Error messages can quote client text. They and exception messages are only logged at level
``debug``; at other levels, a traceback has only the stack and the exception class.
"""

import logging
import sys
import traceback
from types import TracebackType

from pythonjsonlogger.msgspec import MsgspecFormatter

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def set_up(level: str) -> None:
    """Send all logs of this process, including Python warnings, to standard error.

    Args:
        level: minimum log level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    # As advised for high log volumes ("Optimization" in Python's logging guide): skip source
    # location, thread and process, which are not logged.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(quotes=level == "debug"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)


class Lines(MsgspecFormatter):
    """JSON formatter for log records.

    Args:
        quotes: also log exception messages.
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
