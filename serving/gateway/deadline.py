"""Deadlines: how long a request's answer is of use, to the caller or by its route."""

import time
from dataclasses import dataclass
from typing import Self

from serving.gateway.errors import DeadlineExceeded, EngineTimeout, GatewayError

TIMEOUT = "x-request-timeout-ms"
"""Request header: milliseconds in which the answer is of use. At most the route's own time."""


@dataclass(frozen=True)
class Deadline:
    """When an answer is no longer of use."""

    at: float
    """Time of the monotonic clock, in seconds. The event loop's own costs more: each look for the
    running loop is a system call (CPython 3.11, Modules/_asynciomodule.c)."""
    is_callers: bool = False
    """Whether the caller set it, rather than the route."""

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline in so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left; negative once it has passed."""
        return self.at - time.monotonic()

    def passed(self) -> GatewayError:
        """Return the error to raise once it has passed."""
        if self.is_callers:
            return DeadlineExceeded(f"{TIMEOUT} passed before the answer")
        return EngineTimeout("the engine took too long; try again later")
