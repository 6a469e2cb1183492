"""What this project changes inside vLLM's processes (entry point group ``vllm.general_plugins``).

vLLM runs its engine core and workers as children of the API server. When the API server is killed
outright (out of memory, SIGKILL), vLLM 0.32 leaves them running, with the model's memory and the
output pipe, and whoever started the engine waits forever. Here a child dies with its parent.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def register() -> None:
    """Called by vLLM in each of its processes, possibly more than once."""
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)
