"""Imported last by the process that engine cores are forked from (``preload_cpu``).

- It ends at once, and not by taking down all that it has imported: that takes seconds, and while it
  lasts the engine's output stays open, by which others know that the engine has ended.
- It looks for its command line, over which engine cores write their titles: setproctitle finds it
  by the environment that lies behind it, which is another's later on.
"""

from __future__ import annotations

import atexit
import os

from setproctitle import getproctitle

_PID = os.getpid()


@atexit.register
def _exit() -> None:
    if os.getpid() == _PID:  # and not in an engine core
        os._exit(0)


getproctitle()
