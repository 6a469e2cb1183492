"""Content negotiation: JSON, or one of the task's own formats.

The format is chosen by the request's Accept header (RFC 9110, section 12.5.1).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import mimeparse
from fastapi import Request
from fastapi.responses import Response

from serving.gateway.errors import InvalidRequest, NotAcceptable
from serving.tasks.base import Form, QueryError, Task

JSON = "application/json"

Renderer = Callable[[str], Response]
"""Converts an answer's JSON text into the response."""


def forms_of(task: Task[Any]) -> dict[str, Form | None]:
    """Return a task's answer formats by media type. JSON comes last, because the last one wins if
    the client has no preference."""
    return {**{form.media_type: form for form in task.forms()}, JSON: None}


def choose(request: Request, forms: Mapping[str, Form | None]) -> Renderer:
    """Select the renderer for the format that ``request`` accepts.

    Raises:
        NotAcceptable: no format matches.
        InvalidRequest: a query parameter of the format is missing or invalid.
    """
    offered = tuple(forms)
    chosen = _best(offered, ",".join(request.headers.getlist("accept")))
    if not chosen:
        raise NotAcceptable(f"this route answers {' or '.join(offered)}; set accept to one of them")
    form, query = forms[chosen], request.query_params if request.scope["query_string"] else {}
    try:
        prepared = {
            media_type: one.prepare(query)
            for media_type, one in forms.items()
            if one and (one is form or any(each["name"] in query for each in one.parameters))
        }  # what is given is checked, needed or not
    except QueryError as error:
        raise InvalidRequest(str(error), error.parameter) from error
    if form is None:
        return lambda text: Response(text, media_type=JSON)
    make, headers = prepared[chosen], {}
    if form.file_name:
        headers["content-disposition"] = f'attachment; filename="{form.file_name}"'
    return lambda text: Response(make(text), headers=headers, media_type=chosen)


@lru_cache(maxsize=64)
def _best(offered: tuple[str, ...], accept: str) -> str:
    """Return the offered media type that best matches ``accept``; empty if none does. Members
    that are no media ranges are ignored."""
    ranges = [member for member in accept.lower().split(",") if _is_range(member)]
    chosen: str = mimeparse.best_match(offered, ",".join(ranges) or "*/*")
    return chosen


def _is_range(member: str) -> bool:
    try:
        mimeparse.parse_media_range(member)
    except mimeparse.MimeTypeParseException:
        return False
    return True
