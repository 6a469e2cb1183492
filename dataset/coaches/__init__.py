"""Coach policies: what is right for a lifter, a module a task. Nothing in serving imports one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """Where one task's rows come from."""

    requests: Callable[[int], Iterator[Any]]
    """From a seed to an endless stream of complete requests, the same for the same seed."""
    coach: Callable[[Any], Mapping[str, Any]]
    """From a request to the decisions that are right for it."""
    rows: Mapping[str, int]
    """Rows by split: ``train``, ``validation`` and ``test``."""
    form_rows: int
    """Rows for the base model."""
