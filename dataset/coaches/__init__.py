"""Coach policies that define the correct answers, one module per task. Not imported by serving."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """Source of one task's rows."""

    requests: Callable[[int], Iterator[Any]]
    """Map a seed to an endless, deterministic stream of complete requests."""
    coach: Callable[[Any], Mapping[str, Any]]
    """Map a request to the correct decisions for it."""
    rows: Mapping[str, int]
    """Row count per split: ``train``, ``validation`` and ``test``."""
    form_rows: int
    """Row count for training the base model."""
