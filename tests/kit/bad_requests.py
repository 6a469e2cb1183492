"""Requests that must be rejected, generated from each task's schema and examples. Used with both
the fake and the real engine."""

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from serving.tasks.registry import CALCULATIONS, TASKS

JSON = "application/json"
ROUTES: dict[str, Any] = {**TASKS, **CALCULATIONS}


class Case(NamedTuple):
    """A request and its expected response."""

    name: str
    body: bytes
    content_type: str
    status: int
    param: str | None
    words: str
    """Text that the error message must contain."""


def good(route: str) -> dict[str, Any]:
    """Return a route's first example."""
    return dict(ROUTES[route].examples[0].model_dump())


GOOD = good("rate")
GOOD_MONTH = good("month")


def _with(body: dict[str, Any], path: str, value: Any) -> bytes:
    body = copy.deepcopy(body)
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(body).encode()


def _without(body: dict[str, Any], path: str) -> bytes:
    body = copy.deepcopy(body)
    *parents, last = path.split(".")
    place = body
    for parent in parents:
        place = place[parent]
    del place[last]
    return json.dumps(body).encode()


def _fields(
    schema: dict[str, Any], whole: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield each field's path, schema and whether it is required, parents before their fields."""
    for name, field in schema["properties"].items():
        options = field.get("anyOf", [field])
        resolved = next(option for option in options if option.get("type") != "null")
        if "$ref" in resolved:
            resolved = whole["$defs"][resolved["$ref"].rpartition("/")[2]]
        is_nullable = {"type": "null"} in options
        yield f"{path}{name}", {**resolved, "nullable": is_nullable}, name in schema["required"]
        if "properties" in resolved:
            yield from _fields(resolved, whole, f"{path}{name}.")


def _values(schema: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield invalid values for a field: a description, the value, and text of the message."""
    if not schema["nullable"]:
        yield "null", None, "must be"
    if "items" in schema:
        words = f"a list of {schema['minItems']} to {schema['maxItems']} objects"
        yield from (("a number", 5, words), ("a text", "x", words), ("an object", {}, words))
        return
    if "properties" in schema:
        words = ", ".join(list(schema["properties"])[:2])
        yield from (("a number", 5, words), ("a text", "x", words), ("a list", [1], words))
        return
    if "enum" in schema:
        words = ", ".join(map(str, schema["enum"][:2]))
        yield from (("unknown", "xyz", words), ("an object", {}, words), ("negative", -5, words))
        return
    low, high = f"from {schema['minimum']:g}", f"to {schema['maximum']:g}"
    yield from (
        ("too low", schema["minimum"] - 1, low),
        ("too high", schema["maximum"] + 1, high),
        ("far too high", 1e300, high),
        ("NaN", float("nan"), high),
        ("infinite", float("inf"), high),
        ("a text", "1", "an integer" if schema["type"] == "integer" else "a number"),
        ("a list", [1], high),
        ("a boolean", True, "an integer" if schema["type"] == "integer" else "a number"),
    )
    if schema["type"] == "integer":
        yield "a fraction", schema["minimum"] + 0.5, "an integer"


def cases(name: str) -> Iterator[Case]:
    """Yield all requests that a route must reject."""
    task, body = ROUTES[name], good(name)
    whole = task.request.model_json_schema()
    for path, schema, is_required in _fields(whole, whole):
        if is_required:
            yield Case(f"{path} missing", _without(body, path), JSON, 422, path, "missing")
        for what, value, words in _values(schema):
            wrong = _with(body, path, value)
            yield Case(f"{path} {what}", wrong, JSON, 422, path, words)
        if "properties" in schema:
            extra = f"{path}.extra"
            yield Case(extra, _with(body, extra, 1), JSON, 422, extra, "not a known field")
    for number, bad in enumerate(task.bad):
        wrong = json.dumps({**body, **bad.changes}).encode()
        yield Case(f"its own {number}", wrong, JSON, 422, bad.parameter, bad.words)
    right = json.dumps(body).encode()
    first = next(iter(whole["properties"]))
    for what, raw, status, param, words in (
        ("unknown field", _with(body, "name", "x"), 422, "name", "not a known field"),
        ("long unknown field", _with(body, "k" * 3000, 1), 422, "k" * 80, "not a known field"),
        ("empty field", _with(body, "", 1), 422, '""', '"" is not a known field'),
        ("half a surrogate", _with(body, first, "\ud800"), 400, None, "hex escape"),
        ("half a surrogate as field", _with(body, "\udcff", 1), 400, None, "hex escape"),
        ("an empty object", b"{}", 422, whole["required"][0], "missing"),
        ("a list", b"[]", 422, None, "an object"),
        ("null", b"null", 422, None, "an object"),
        ("nothing", b"", 400, None, "EOF"),
        ("no JSON", right[:-1], 400, None, "not JSON"),
        ("no UTF-8", b'{"\xff": 1}', 400, None, "not JSON"),
        ("nested deep", b"[" * 3000, 400, None, "not JSON"),
        ("10 MB", b" " * 10_000_000, 413, None, "at most"),
    ):
        yield Case(what, raw, JSON, status, param, words)
    yield Case("no content type", right, "", 415, None, JSON)
    yield Case("another content type", right, "text/plain", 415, None, JSON)


CASES = [(name, case) for name in ROUTES for case in cases(name)]
"""All cases, each with its route's name."""
