"""Imported last by the process that engine cores are forked from (``preload_cpu``).

It then ends at once, and not by taking down all that it has imported: that takes seconds, and while
it lasts the engine's output stays open, by which others know that the engine has ended.
"""

from __future__ import annotations

import atexit
import os

_FORKED_FROM = os.getpid()


@atexit.register
def _exit() -> None:
    if os.getpid() == _FORKED_FROM:  # and not in an engine core
        os._exit(0)
