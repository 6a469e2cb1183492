"""Requests that must be refused, used against the fake and the real engine alike."""

from __future__ import annotations

import copy
import json
from typing import Any

from serving.contract.profile import PUBLISHED

GOOD: dict[str, Any] = PUBLISHED[0].model_dump()
JSON = "application/json"


def _with(path: str, value: Any) -> bytes:
    body = copy.deepcopy(GOOD)
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

BAD: dict[str, Case] = {
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
    "gender half a surrogate": (_with("gender", "\ud800"), JSON, 422, "gender", "남성, 여성"),
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
    "unknown field half a surrogate": (_with("\udcff", 1), JSON, 422, None, "an object"),
    "unknown field long": (_with("k" * 3000, 1), JSON, 422, "k" * 80, "not a known field"),
    "empty object": (b"{}", JSON, 422, "experience", "missing"),
    "a list": (b"[]", JSON, 422, None, "an object"),
    "null": (b"null", JSON, 422, None, "an object"),
    "empty": (b"", JSON, 422, None, "missing"),
    "not JSON": (b'{"experience": 1', JSON, 400, None, "not JSON"),
    "not UTF-8": (b'{"experience": "\xff"}', JSON, 400, None, "not JSON"),
    "nested deep": (b"[" * 3000, JSON, 400, None, "not JSON"),
    "10 MB": (b" " * 10_000_000, JSON, 413, None, "at most"),
    "content type missing": (json.dumps(GOOD).encode(), "", 415, None, "application/json"),
    "content type wrong": (json.dumps(GOOD).encode(), "text/plain", 415, None, "application/json"),
}
