"""Parse request bodies; errors name the field and its valid values."""

import json
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
        return request.model_validate_json(body)
    except ValidationError as error:
        raise _client_error(error.errors(include_url=False)[0], request) from error


def _client_error(first: ErrorDetails, request: type[BaseModel]) -> ClientError:
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {first['ctx']['error']}")
    place = [str(part)[:_LONGEST] for part in first["loc"]]
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
    if isinstance(given, dict | list):
        return "an object" if isinstance(given, dict) else "a list"
    return json.dumps(given[:_LONGEST] if isinstance(given, str) else given, ensure_ascii=False)[
        : _LONGEST + 2
    ]


def _allowed(request: type[BaseModel], place: Sequence[str]) -> str:
    """Describe the valid values at ``place``, based on the model's JSON schema."""
    whole = request.model_json_schema()
    schema = whole
    for part in place:
        parent = _resolved(whole, schema)
        schema = parent.get("items") or parent.get("properties", {}).get(part, {})
    schema = _resolved(whole, schema)
    if "properties" in schema:
        return f"it must be an object with {', '.join(schema['properties'])}"
    if "items" in schema:
        fields = ", ".join(_resolved(whole, schema["items"])["properties"])
        least, most = schema["minItems"], schema["maxItems"]
        return f"it must be a list of {least} to {most} objects with {fields}"
    if "enum" in schema:
        return f"it must be one of {', '.join(map(str, schema['enum']))}"
    words = {"integer": "an integer", "number": "a number", "string": "a text"}
    kind = words.get(schema.get("type", ""), "as /docs says")
    if "minimum" in schema and "maximum" in schema:
        kind += f" from {schema['minimum']:g} to {schema['maximum']:g}"
    elif "minimum" in schema:
        kind += f" of at least {schema['minimum']:g}"
    if "multipleOf" in schema:
        kind += f" in steps of {schema['multipleOf']:g}"
    return f"it must be {kind}"


def _resolved(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Resolve references in ``schema``; for a nullable schema, return the non-null option."""
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            schema = option
    reference = schema.get("$ref")
    if reference is None:
        return schema
    resolved: dict[str, Any] = whole["$defs"][reference.rpartition("/")[2]]
    return resolved
