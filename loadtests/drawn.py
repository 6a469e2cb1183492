"""Requests to measure with: any that are legal, and no two alike."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from serving.contract import month, rate
from serving.contract.month import MonthRequest
from serving.contract.profile import EXPERIENCE, GENDERS, LIFTS, PURPOSE, Profile


def drawn(chance: Random) -> MonthRequest:
    """Any legal month request: no two alike, so that nothing can be answered from memory alone."""
    weights = {lift: chance.uniform(20, 250) for lift in LIFTS}
    return MonthRequest.model_validate(
        {
            "experience": chance.choice(list(EXPERIENCE)),
            "gender": chance.choice(GENDERS),
            "purpose": chance.choice(list(PURPOSE)),
            "rm_weight": weights,
            "days_per_week": chance.choice((2, 3, 4)),
            "rates": rate.OUTPUT.sample(chance),
        }
    )


ASKED: dict[str, tuple[str, Callable[[MonthRequest], Profile]]] = {
    "rate": ("rate", month.profile_behind),
    "month, rates given": ("month", lambda request: request),
    "month, rates made first": ("month", lambda r: r.model_copy(update={"rates": None})),
}
"""What can be asked: name in tables, task, and its request from a drawn one."""
