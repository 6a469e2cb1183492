"""Requests that must be refused, used against the fake and the real engine alike."""

from __future__ import annotations

import copy
import json
from typing import Any

from serving.contract.month import EXAMPLES
from serving.contract.profile import PUBLISHED

GOOD: dict[str, Any] = PUBLISHED[0].model_dump()
GOOD_MONTH: dict[str, Any] = EXAMPLES[0].model_dump()
JSON = "application/json"


def _with(path: str, value: Any, good: dict[str, Any] = GOOD) -> bytes:
    body = copy.deepcopy(good)
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(body).encode()


def _without(path: str) -> bytes:
    body = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    del place[last]
    return json.dumps(body).encode()


Case = tuple[bytes, str, int, str | None, str]
"""Body, content type, status, ``param``, and words the message must have."""

BAD_RATE: dict[str, Case] = {
    "experience too low": (_with("experience", 0), JSON, 422, "experience", "from 1 to 5"),
    "experience too high": (_with("experience", 6), JSON, 422, "experience", "from 1 to 5"),
    "experience as text": (_with("experience", "1"), JSON, 422, "experience", "an integer"),
    "experience as fraction": (_with("experience", 1.5), JSON, 422, "experience", "an integer"),
    "experience as boolean": (_with("experience", True), JSON, 422, "experience", "an integer"),
    "experience null": (_with("experience", None), JSON, 422, "experience", "from 1 to 5"),
    "experience missing": (_without("experience"), JSON, 422, "experience", "missing"),
    "purpose too high": (_with("purpose", 7), JSON, 422, "purpose", "from 1 to 6"),
    "purpose as list": (_with("purpose", [1]), JSON, 422, "purpose", "from 1 to 6"),
    "gender unknown": (_with("gender", "male"), JSON, 422, "gender", "남성, 여성"),
    "half a surrogate": (_with("gender", "\ud800"), JSON, 400, None, "hex escape"),
    "gender as object": (_with("gender", {}), JSON, 422, "gender", "남성, 여성"),
    "weights missing": (_without("rm_weight"), JSON, 422, "rm_weight", "bench_press, squat"),
    "weights as number": (_with("rm_weight", 5), JSON, 422, "rm_weight", "bench_press, squat"),
    "squat zero": (_with("rm_weight.squat", 0), JSON, 422, "rm_weight.squat", "from 10 to 600"),
    "squat negative": (_with("rm_weight.squat", -5), JSON, 422, "rm_weight.squat", "10 to 600"),
    "squat NaN": (_with("rm_weight.squat", float("nan")), JSON, 422, "rm_weight.squat", "600"),
    "squat infinite": (_with("rm_weight.squat", float("inf")), JSON, 422, "rm_weight.squat", "600"),
    "squat 10,000 kg": (_with("rm_weight.squat", 10_000), JSON, 422, "rm_weight.squat", "600"),
    "squat as text": (_with("rm_weight.squat", "50"), JSON, 422, "rm_weight.squat", "a number"),
    "squat missing": (_without("rm_weight.squat"), JSON, 422, "rm_weight.squat", "missing"),
    "unknown field": (_with("name", "x"), JSON, 422, "name", "experience, gender"),
    "unknown lift": (_with("rm_weight.curl", 5), JSON, 422, "rm_weight.curl", "bench_press"),
    "unknown field half a surrogate": (_with("\udcff", 1), JSON, 400, None, "hex escape"),
    "unknown field long": (_with("k" * 3000, 1), JSON, 422, "k" * 80, "not a known field"),
    "empty object": (b"{}", JSON, 422, "experience", "missing"),
    "a list": (b"[]", JSON, 422, None, "an object"),
    "null": (b"null", JSON, 422, None, "an object"),
    "empty": (b"", JSON, 400, None, "EOF"),
    "not JSON": (b'{"experience": 1', JSON, 400, None, "not JSON"),
    "not UTF-8": (b'{"experience": "\xff"}', JSON, 400, None, "not JSON"),
    "nested deep": (b"[" * 3000, JSON, 400, None, "not JSON"),
    "10 MB": (b" " * 10_000_000, JSON, 413, None, "at most"),
    "content type missing": (json.dumps(GOOD).encode(), "", 415, None, "application/json"),
    "content type wrong": (json.dumps(GOOD).encode(), "text/plain", 415, None, "application/json"),
}


def _month(path: str, value: Any, status_param: str | None, words: str) -> Case:
    return (_with(path, value, GOOD_MONTH), JSON, 422, status_param or path, words)


_RATES = {
    "init_weight_rate": 75,
    "increase_rate_week": 10,
    "increase_rate_set": 5,
    "deloading_rate": 40,
}

BAD_MONTH: dict[str, Case] = {
    "no days": _month("days_per_week", 0, None, "from 2 to 4"),
    "seven days": _month("days_per_week", 7, None, "from 2 to 4"),
    "days as text": _month("days_per_week", "3", None, "an integer from 2 to 4"),
    "days as fraction": _month("days_per_week", 2.5, None, "an integer"),
    "days missing": (json.dumps(GOOD).encode(), JSON, 422, "days_per_week", "missing"),
    "experience too high": _month("experience", 6, None, "from 1 to 5"),
    "squat 10,000 kg": _month("rm_weight.squat", 10_000, None, "from 10 to 600"),
    "basis unknown": _month("basis", "2rm", None, "1rm, tm"),
    "basis null": _month("basis", None, None, "1rm, tm"),
    "plate step zero": _month("plate_step", 0, None, "from 0.25 to 5"),
    "plate step negative": _month("plate_step", -2.5, None, "from 0.25 to 5"),
    "plate step too large": _month("plate_step", 20, None, "from 0.25 to 5"),
    "plate step off its grid": _month("plate_step", 0.3, None, "in steps of 0.25"),
    "plate step NaN": _month("plate_step", float("nan"), None, "from 0.25 to 5"),
    "plate step as text": _month("plate_step", "2.5", None, "a number"),
    "rates over 100 % by week": _month("rates", _RATES, "rates.increase_rate_week", "must be 5"),
    "rates over 100 % by set": _month(
        "rates",
        {**_RATES, "increase_rate_week": 5, "increase_rate_set": 10},
        "rates.increase_rate_set",
        "100 %",
    ),
    "rate negative": _month("rates.init_weight_rate", -5, None, "one of 40, 45"),
    "rate over 100": _month("rates.init_weight_rate", 105, None, "one of 40, 45"),
    "rate off the grid": _month("rates.deloading_rate", 41, None, "one of 35, 40"),
    "rates as text": _month("rates", "65/5/10/40", None, "init_weight_rate, increase_rate_week"),
    "rates empty": _month("rates", {}, "rates.init_weight_rate", "missing"),
    "rates with the plan": _month("rates.program", "5/3/1", None, "not a known field"),
    "unknown field": _month("weeks", 4, None, "days_per_week"),
    "a list": (b"[]", JSON, 422, None, "an object"),
    "not JSON": (b"{", JSON, 400, None, "not JSON"),
    "content type wrong": (json.dumps(GOOD_MONTH).encode(), "text/csv", 415, None, "json"),
}

BAD = {"rate": BAD_RATE, "month": BAD_MONTH}
"""By task; all cases as (task, name): ``CASES``."""
CASES = [(task, name) for task, cases in BAD.items() for name in cases]
