"""What surrounds every request: ids, limits on the body, a client that leaves, metrics, and the
last line of defence."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.errors import BodyTooLarge, GatewayError, UnsupportedMediaType
from serving.gateway.metrics import Metrics

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""W3C Trace Context, level 1, section 3.2."""
OTHER = "other"
"""Metric label of requests that met no route."""
CLIENT_LEFT = "499"
"""Metric label of requests whose client closed the connection before the answer began."""

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
    """ASGI middleware around the whole application.

    Args:
        app: what is inside.
        metrics: where requests are counted.
        max_body_bytes: the largest body that is read.
        methods: by path, the methods that are served; filled before the first request. No path
            here has parameters, so the path itself is the metric's label.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        max_body_bytes: int,
        methods: Mapping[str, frozenset[str]],
    ) -> None:
        self._app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = trace_headers(scope)
        scope.setdefault("state", {})["trace_headers"] = headers
        methods = self._methods.get(scope["path"], frozenset())
        known = scope["method"] in methods
        status = CLIENT_LEFT

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            body = await self._read(scope, receive) if known and scope["method"] == "POST" else b""
            await self._run(scope, body, receive, send_with_ids)
        except GatewayError as error:
            await _send_error(error, send_with_ids)
        except Exception:  # the process's edge: a bug must still answer in the one error shape
            log.exception("request %s failed", headers["x-request-id"])
            if status == CLIENT_LEFT:
                await _send_error(GatewayError("internal error"), send_with_ids)
        finally:
            route, method = scope["path"] if methods else OTHER, scope["method"] if known else OTHER
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - start)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, within limits, before anything is done with it.

        Raises:
            UnsupportedMediaType: a body that is not called JSON.
            BodyTooLarge: more than ``max_body_bytes``.
        """
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(
                f"content-type is {kind[:80] or 'missing'!r}; send application/json"
            )
        limit = BodyTooLarge(f"the body may have at most {self._max_body_bytes} bytes")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            raise limit
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                raise limit
        return bytes(body)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application, and stop it when the client leaves before the answer is sent."""
        left = asyncio.Event()
        unread = True

        async def replay() -> Message:
            nonlocal unread
            if unread:
                unread = False
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()
            work.cancel()

        work = asyncio.ensure_future(self._app(scope, replay, send))
        watcher = asyncio.create_task(watch())
        try:
            await asyncio.wait([work])
            if not work.cancelled():
                work.result()
        finally:
            work.cancel()
            watcher.cancel()


async def _send_error(error: GatewayError, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(k.encode(), v.encode()) for k, v in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error.bytes()})
