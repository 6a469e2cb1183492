"""Coach policies that define the correct answers, one module per task. Not imported by serving."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dataset.profiles import Mix


class Requests(Protocol):
    """Maps a seed to an endless, deterministic stream of complete requests."""

    def __call__(self, seed: int, mix: Mix = ...) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Source:
    """Source of one task's rows."""

    requests: Requests
    coach: Callable[[Any], Mapping[str, Any]]
    """Map a request to the correct decisions for it."""
    rows: Mapping[str, int]
    """Row count by file: ``train``, ``validation``, ``test`` and ``odd``."""
    form_rows: int
    """Row count for training the base model."""
    held_out: Literal["prompt", "answer"] = "prompt"
    """What no two splits share. Few different answers cannot be held out, but many should be: else
    a test is a look-up."""
