"""Parse request bodies; errors name the field and its valid values."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serving.gateway.errors import ClientError, InvalidRequest, MalformedBody

Request = TypeVar("Request", bound=BaseModel)
_LONGEST = 80
"""Maximum number of characters of client text quoted in an error message."""


def validated(request: type[Request], body: bytes) -> Request:
    """Parse ``body`` into a ``request``.

    Raises:
        ClientError: MalformedBody or InvalidRequest, for the first problem found.
    """
    try:
        found = request.model_validate_json(body)
    except ValidationError as error:
        raise _client_error(error.errors(include_url=False)[0], request) from error
    _DECODER.raw_decode(body.decode().lstrip())
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's fields. Of one that comes twice, parsers take the first or the last, so
    that what was checked need not be what is used.

    Raises:
        MalformedBody: one comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedBody(f"{_shown(twice)} comes twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def _client_error(first: ErrorDetails, request: type[BaseModel]) -> ClientError:
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {first['ctx']['error']}")
    place = [str(part)[:_LONGEST] or '""' for part in first["loc"]]
    if first["type"] not in ("extra_forbidden", "missing"):
        place, _ = _follow(request.model_json_schema(), place)
    name = ".".join(place) or "the body"
    if first["type"] == "extra_forbidden":
        allowed = _allowed(request, place[:-1])
        return InvalidRequest(f"{name} is not a known field; {allowed}", name)
    if first["type"] == "value_error":
        allowed = str(first["ctx"]["error"])
    else:
        allowed = _allowed(request, place)
    if first["type"] == "missing":
        return InvalidRequest(f"{name} is missing; {allowed}", ".".join(place) or None)
    given = first.get("input")
    if first["type"] == "value_error" and isinstance(given, dict | list):
        return InvalidRequest(f"{name}: {allowed}", name)
    return InvalidRequest(f"{name} cannot be {_shown(given)}; {allowed}", ".".join(place) or None)


def _shown(given: Any) -> str:
    """Format a client's value as JSON, truncated."""
    if isinstance(given, dict):
        return "an object" if given else "an empty object"
    if isinstance(given, list):
        return "a list" if given else "an empty list"
    return json.dumps(given[:_LONGEST] if isinstance(given, str) else given, ensure_ascii=False)[
        : _LONGEST + 2
    ]


def _follow(whole: dict[str, Any], place: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return ``place`` up to the last field that the schema knows, and that field's schema. Beyond
    it, pydantic says which option of a union it tried."""
    known, schema = list[str](), _resolved(whole, whole)
    for part in place:
        inner = schema.get("items") or schema.get("properties", {}).get(part)
        if not inner:
            break
        known.append(part)
        schema = _resolved(whole, inner)
    return known, schema


def _allowed(request: type[BaseModel], place: Sequence[str]) -> str:
    """Describe the valid values at ``place``, based on the model's JSON schema."""
    whole = request.model_json_schema()
    _, schema = _follow(whole, place)
    if "properties" in schema:
        return f"it must be an object with {', '.join(schema['properties'])}"
    if "items" in schema and "properties" in (item := _resolved(whole, schema["items"])):
        most = schema.get("maxItems")
        count = f"{schema['minItems']} to {most} " if most else ""
        return f"it must be a list of {count}objects with {', '.join(item['properties'])}"
    if "const" in schema:
        only = schema["const"]
        return f"it must be {only if isinstance(only, str) else _shown(only)}"
    if "enum" in schema:
        return f"it must be one of {', '.join(map(str, schema['enum']))}"
    options = schema.get("anyOf", [schema])
    kind = " or ".join(dict.fromkeys(map(_kind, options)))
    if "minimum" in schema and "maximum" in schema:
        kind += f" from {schema['minimum']:g} to {schema['maximum']:g}"
    elif "minimum" in schema:
        kind += f" of at least {schema['minimum']:g}"
    elif "exclusiveMinimum" in schema:
        kind += f" above {schema['exclusiveMinimum']:g}"
        kind += f", at most {schema['maximum']:g}" if "maximum" in schema else ""
    if "multipleOf" in schema:
        kind += f" in steps of {schema['multipleOf']:g}"
    return f"it must be {kind}"


KINDS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "object": "an object",
    "null": "null",
}
MANY = {"integer": "integers", "string": "texts", "array": "lists of integers"}


def _kind(schema: dict[str, Any]) -> str:
    """Name the type of a value."""
    if schema.get("type") == "array":
        return f"a list of {MANY.get(schema['items'].get('type', ''), 'objects')}"
    return KINDS.get(schema.get("type", ""), "as /docs says")


def _resolved(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Resolve references in ``schema``; for a nullable schema, return the non-null option."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        schema = options[0] if len(options) == 1 else {"anyOf": options}
    reference = schema.get("$ref")
    if reference is None:
        return schema
    resolved: dict[str, Any] = whole["$defs"][reference.rpartition("/")[2]]
    return resolved
