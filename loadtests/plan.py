"""What a load test does, and when; the command that starts it tells every Locust process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

VARIABLE = "ROUTINE_LOAD_PLAN"
COUNTS_FILE = "ROUTINE_LOAD_COUNTS"
"""The environment variable that names where Locust's users leave what they counted."""
KINDS = ("rate", "month", "completions")
"""What is asked: each task's route, and streaming completions."""


@dataclass(frozen=True)
class Stage:
    """A part of a shape."""

    time: float
    """Share of the test's seconds."""
    load: float
    """Share of its level."""


SHAPES: dict[str, tuple[Stage, ...]] = {
    "steady": (Stage(1, 1),),
    "stairs": tuple(Stage(1 / 8, step / 8) for step in range(1, 9)),
    "spike": (Stage(0.4, 0.25), Stage(0.2, 1), Stage(0.4, 0.25)),
    "soak": tuple(Stage(1 / 6, 0.5) for _ in range(6)),
}
"""Load over time. ``stairs`` go up to saturation; ``soak`` stays at half, for long, and its parts
tell whether the end is like the beginning."""


@dataclass(frozen=True)
class Plan:
    """One load test."""

    shape: str
    """A key of ``SHAPES``; empty where Locust's page sets the load."""
    level: int
    """Users at the shape's top; in an open loop, arrivals a second."""
    seconds: float
    is_open: bool
    """Requests arrive at random whether or not earlier ones were answered (a Poisson process),
    instead of each user waiting for its answer."""
    mix: Mapping[str, int]
    """Weights of ``KINDS``."""
    adapters: Mapping[str, int]
    """Weights of the models that completions ask."""
    leave: float
    """Share of requests whose client disconnects before the answer."""
    deadline_seconds: float
    """An answer that takes longer is late."""
    seed: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        return SHAPES.get(self.shape, (Stage(1, 1),))

    def stage(self, elapsed: float) -> int:
        """The number of the stage after so many seconds; the stages' number once all are over."""
        end = 0.0
        for number, stage in enumerate(self.stages):
            end += stage.time * self.seconds
            if elapsed < end:
                return number
        return len(self.stages)

    def store(self) -> dict[str, str]:
        """An environment with which ``stored`` finds this plan."""
        return {VARIABLE: msgspec.json.encode(asdict(self)).decode()}


def stored() -> Plan:
    """The plan in this process's environment.

    Raises:
        SystemExit: there is none.
    """
    try:
        return msgspec.json.decode(os.environ.get(VARIABLE, ""), type=Plan)
    except msgspec.DecodeError as error:
        sys.exit(f"{VARIABLE}: {error}; `python -m loadtests.load` starts Locust, and sets it")
