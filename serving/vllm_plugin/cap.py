"""Ends an engine that takes too much memory, with one line, before the kernel ends something."""

import multiprocessing
import os
import threading
import time
from contextlib import suppress
from functools import cache

import psutil

VARIABLE = "ENGINE_MEMORY_GIB"
"""Environment variable with the cap; ``serving.engine`` sets it."""
CHECK_SECONDS = 1.0


@cache
def start() -> None:
    """Watch this process and its children from now on, if a cap is set and this is the first of
    vLLM's processes."""
    given = os.environ.get(VARIABLE)
    if given and multiprocessing.parent_process() is None:
        cap = float(given) * 2**30
        threading.Thread(target=_watch, args=(cap,), name="memory cap", daemon=True).start()


def used() -> int:
    """Return the memory of this process and its children in bytes, without files and libraries."""
    total, own = 0, psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_info()
            total += memory.rss - memory.shared
    return total


def _watch(cap: float) -> None:
    while used() <= cap:
        time.sleep(CHECK_SECONDS)
    print(f"engine: it takes more than {cap / 2**30:.2f} GiB ({VARIABLE}): ending it", flush=True)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)
