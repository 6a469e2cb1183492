"""What the dataset is made of, task by task: requests, the coach who answers them, and how many.

A new task is a coach module like ``coach_rate`` and an entry here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dataset.coach_month import coach_month
from dataset.coach_rate import coach_rate
from dataset.profiles import profiles
from serving.contract import rate
from serving.contract.month import MonthRequest
from serving.contract.tasks import TASKS, Task

SHARE_COACHED = 0.5
"""Share of month requests whose rates are the Task 1 coach's; the others are any legal ones."""


@dataclass(frozen=True)
class Source:
    """Where one task's rows come from."""

    task: Task
    requests: Callable[[int], Iterator[Any]]
    """From a seed to an endless stream of complete requests."""
    coach: Callable[[Any], Mapping[str, Any]]
    """From a request to the decisions that are right for it."""
    rows: Mapping[str, int]
    """Rows by split."""
    form_rows: int
    """Rows for the base model."""


def month_requests(seed: int) -> Iterator[MonthRequest]:
    """Month requests over the whole input space, the same for the same seed."""
    chance = random.Random(seed)
    legal = list(rate.OUTPUT.enumerate())
    for profile in profiles(seed):
        coached = chance.random() < SHARE_COACHED
        rates = coach_rate(profile) if coached else chance.choice(legal)
        days = chance.choice((2, 3, 4))
        yield MonthRequest.model_validate(
            {**profile.model_dump(), "days_per_week": days, "rates": rates}
        )


SOURCES = {
    source.task.name: source
    for source in (
        Source(
            task=TASKS["rate"],
            requests=profiles,
            coach=coach_rate,
            rows={"train": 80_000, "validation": 1_000, "test": 2_000},
            form_rows=20_000,
        ),
        Source(
            task=TASKS["month"],
            requests=month_requests,
            coach=coach_month,
            rows={"train": 8_000, "validation": 1_000, "test": 1_000},
            form_rows=8_000,
        ),
    )
}
