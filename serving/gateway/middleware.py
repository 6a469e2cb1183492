"""What surrounds every request: ids, limits on the body, metrics, and the last line of defence."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.errors import BodyTooLarge, GatewayError, UnsupportedMediaType
from serving.gateway.metrics import Metrics

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1, section 3.2."""
OTHER = "other"
"""Metric label of requests that met no route."""

log = logging.getLogger(__name__)


def trace_headers(scope: Scope) -> dict[str, str]:
    """``x-request-id`` and ``traceparent``: the client's where they are well formed, or new."""
    given = Headers(scope=scope)
    request_id, trace = given.get("x-request-id", ""), given.get("traceparent", "")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = secrets.token_hex(16)
    if not _TRACEPARENT.fullmatch(trace):
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return {"x-request-id": request_id, "traceparent": trace}


class Envelope:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int) -> None:
        self._app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = trace_headers(scope)
        scope.setdefault("state", {})["trace_headers"] = headers
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            await self._app(scope, await self._read(scope, receive), send_with_ids)
        except GatewayError as error:
            await _send_error(error, send_with_ids)
        except Exception:  # the process's edge: a bug must still answer in the one error shape
            log.exception("request %s failed", headers["x-request-id"])
            if status == 0:
                await _send_error(GatewayError("internal error"), send_with_ids)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)
            method = scope["method"] if route != OTHER else OTHER
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - start)

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        """Take the whole body, within limits, before anything is done with it.

        Raises:
            UnsupportedMediaType: a body that is not called JSON.
            BodyTooLarge: more than ``max_body_bytes``.
        """
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(
                f"content-type is {kind[:80] or 'missing'!r}; send application/json"
            )
        limit = BodyTooLarge(f"the body may have at most {self._max_body_bytes} bytes")
        if int(headers.get("content-length", "0")) > self._max_body_bytes:
            raise limit
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunks.append(message.get("body", b""))
            size, more = size + len(chunks[-1]), message.get("more_body", False)
            if size > self._max_body_bytes:
                raise limit
        whole: MutableMapping[str, Any] | None = {
            "type": "http.request",
            "body": b"".join(chunks),
            "more_body": False,
        }

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        return replay


async def _send_error(error: GatewayError, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(k.encode(), v.encode()) for k, v in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error.bytes()})
