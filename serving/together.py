"""Processes that run together: all or none.

When one stops, for whatever reason, the others are stopped too and this process ends with an exit
code other than 0. Ctrl-C, SIGTERM and a closed terminal stop all; only SIGKILL of this very process
leaves them running. Restarting is for whatever runs this (systemd, a container's restart policy).
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping

from honcho.manager import Manager


def together(modules: Mapping[str, str]) -> None:
    """Run Python modules until one ends; then end the others, and this process.

    Args:
        modules: by what they are called in the log.
    """
    manager = Manager()
    python = shlex.quote(sys.executable)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for name, module in modules.items():
        manager.add_process(name, f"exec {python} -m {module}", env=environment)
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    manager.loop()
    # vLLM's API server ends with 0 when its engine core dies; here nothing ends well by itself.
    sys.exit(manager.returncode or 1)
