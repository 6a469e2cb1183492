"""Last import of the process that engine cores are forked from (``preload``).

- Makes that process exit immediately, without tearing down its imports. Teardown takes seconds and
  keeps the engine's output open, which others watch to detect that the engine has ended.
- Lets setproctitle locate the command line, which engine cores overwrite with their titles. It
  searches from the environment stored after it, and engine cores replace that environment.
"""

import atexit
import os

from setproctitle import getproctitle

_PID = os.getpid()


@atexit.register
def _exit() -> None:
    if os.getpid() == _PID:  # not in a forked engine core
        os._exit(0)


getproctitle()
