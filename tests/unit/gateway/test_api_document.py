"""What callers may rely on is in docs/openapi.json; a change that takes something away is named."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.documents import API, api_document

WORDS = {"description", "summary", "title", "example", "examples"}
COMMITTED = json.loads(API.read_text(encoding="utf-8"))


def promises(document: Any, place: str = "") -> Iterator[str]:
    """Yield each value of a document with its place, but what is only said to people."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name not in WORDS or not isinstance(value, str | list):
                yield from promises(value, f"{place}/{name}")
    elif isinstance(document, list):
        for value in document:
            yield from promises(value, f"{place}[]")
    else:
        yield f"{place} = {document}"


def broken(before: Any, after: Any) -> list[str]:
    """Return what ``before`` has and ``after`` has not, and fields newly required."""
    old, new = set(promises(before)), set(promises(after))
    return sorted(old - new) + sorted(one for one in new - old if "/required[]" in one)


def test_no_caller_is_broken() -> None:
    gone = broken(COMMITTED, json.loads(api_document()))
    assert gone == [], "callers may rely on it: tell in CHANGELOG.md, then run make documents"


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("paths /gen/routine/rate post operationId", "rates", "operationId = rate"),
        ("components schemas Profile properties purpose maximum", 5, "purpose/maximum = 6"),
        ("components schemas Profile properties purpose type", "string", "purpose/type = integer"),
        ("components schemas LiftSet properties kg", None, "LiftSet/properties/kg/type = number"),
        ("components schemas MonthRequest required", ["bar"], "MonthRequest/required[] = bar"),
        ("paths /v1/models get responses 200", None, "/v1/models/get/responses/200"),
    ],
)
def test_what_breaks_callers_is_named(place: str, value: Any, told: str) -> None:
    changed = copy.deepcopy(COMMITTED)
    *parents, last = place.split()
    found = changed
    for parent in parents:
        found = found[parent]
    if value is None:
        del found[last]
    else:
        found[last] = value
    assert any(told in one for one in broken(COMMITTED, changed))


def test_what_is_added_or_said_in_other_words_breaks_nobody() -> None:
    changed = copy.deepcopy(COMMITTED)
    changed["info"]["description"] = "other words"
    changed["paths"]["/new"] = {"get": {"operationId": "new"}}
    changed["components"]["schemas"]["Profile"]["properties"]["age"] = {"type": "integer"}
    assert broken(COMMITTED, changed) == []
