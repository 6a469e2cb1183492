"""Requests for Task 2: worked examples, and invalid requests."""

from serving.tasks.base import BadRequest
from serving.tasks.month.answer import MonthRequest
from serving.tasks.month.assistance import values_of
from serving.tasks.month.week import DAYS
from serving.tasks.profile import PUBLISHED, Profile
from serving.tasks.rate.answer import RATES


def request_of(profile: Profile, days_per_week: int, rates: tuple[int, ...]) -> MonthRequest:
    """Build a request; ``rates`` are in ``RATES`` order.

    Raises:
        pydantic.ValidationError: a value is out of range.
    """
    return MonthRequest.model_validate(
        {**profile.model_dump(), "days_per_week": days_per_week, "rates": _named(rates)}
    )


def _named(rates: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(RATES, rates, strict=True))


CLASSIC = (65, 5, 10, 40)
PROGRESSIONS = ((55, 10, 5, 50), (65, 5, 10, 40), (55, 10, 5, 50), (60, 5, 10, 40), (65, 5, 10, 35))
EXAMPLES = tuple(
    request_of(profile, 2 + number % 3, rates)
    for number, (profile, rates) in enumerate(zip(PUBLISHED, PROGRESSIONS, strict=True))
)
"""The published profiles with one progression each."""
EDGES = (
    request_of(PUBLISHED[0], 4, (40, 5, 5, 45)),
    request_of(PUBLISHED[1], 2, (75, 5, 5, 35)),
    *(request_of(profile, days, CLASSIC) for profile in PUBLISHED for days in DAYS),
)
"""Requests with the lightest and the heaviest initial rate, and for every output."""
ANSWER = values_of(
    {
        ("squat", "bench_press"): {
            "push": ("트라이셉스 푸시다운", 2, 12),
            "pull": ("인버티드 로우", 2, 10),
            "leg": ("스텝업", 2, 10),
            "core": ("플랭크 숄더 탭", 2, 12),
        },
        ("dead_lift", "over_head_press"): {
            "push": ("숄더 프레스 머신", 2, 10),
            "pull": ("랫풀다운", 2, 10),
            "leg": ("글루트 브리지", 3, 12),
            "core": ("크런치", 2, 12),
        },
    }
)
"""Good assistance work for the first example."""
BAD = (
    BadRequest({"plate_step": 0.3}, "plate_step", "in steps of 0.25"),
    BadRequest({"bar": 19.9}, "bar", "in steps of 0.25"),
    BadRequest({"bar": 48}, "bar", "at most 46.75 kg"),
    BadRequest({"plates": []}, "plates", "a list of 1 to 12 objects with kg, pairs"),
    BadRequest({"plates": 20}, "plates", "a list of 1 to 12 objects with kg, pairs"),
    BadRequest({"plates": [20, 10]}, "plates.0", "an object with kg, pairs"),
    BadRequest({"plates": [{"kg": 20}]}, "plates.0.pairs", "an integer from 1 to 20"),
    BadRequest({"plates": [{"kg": 20, "pairs": 1.5}]}, "plates.0.pairs", "an integer from 1"),
    BadRequest({"plates": [{"kg": 20, "pairs": 2}, {"kg": 1.1, "pairs": 1}]}, "plates.1.kg",
               "in steps of 0.125"),
    BadRequest({"plates": [{"kg": 20, "pairs": 2}] * 2}, "plates", "listed once"),
    BadRequest({"plates": [{"kg": 20, "pairs": 2}]}, "plates", "add pairs, or raise plate_step"),
    BadRequest({"plates": [{"kg": 1.25, "pairs": 2}]}, "plates", "add pairs, or raise plate_step"),
    BadRequest({"rates": _named((75, 10, 5, 40))}, "rates.increase_rate_week", "must be 5"),
    BadRequest({"rates": _named((75, 5, 10, 40))}, "rates.increase_rate_set", "85, 90 and 95 %"),
    BadRequest({"rates": _named((65, 10, 10, 40))}, "rates.increase_rate_set", "must be 5 with"),
    BadRequest({"rates": _named((55, 10, 5, 55))}, "rates.deloading_rate", "lighter than week 1"),
    BadRequest({"rates": _named((40, 10, 5, 50))}, "rates.deloading_rate", "points heavier"),
    BadRequest({"rates": _named((105, 5, 5, 40))}, "rates.init_weight_rate", "one of 40, 45"),
    BadRequest({"rates": _named((65, 5, 5, 41))}, "rates.deloading_rate", "one of 35, 40"),
    BadRequest({"rates": {**_named((65, 5, 5, 40)), "program": "5/3/1"}}, "rates.program",
               "not a known field"),
)  # fmt: skip
"""Requests that the schema's limits alone would accept."""
