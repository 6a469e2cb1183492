"""Polling for a condition, with a timeout that suits slow machines."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(
    condition: Callable[[], Found], seconds: float = 120, state: Callable[[], object] = str
) -> Found:
    """Wait until ``condition`` returns a true value, and return it; fail after ``seconds``, with
    ``state()`` in the message."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, state()
        time.sleep(0.05)
    return found
