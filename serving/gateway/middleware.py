"""What surrounds every request: ids, limits on the body, a client that leaves, metrics, and the
last line of defence."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping

from opentelemetry.trace import StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.errors import BodyTooLarge, GatewayError, UnsupportedMediaType
from serving.gateway.logs import TRACE_HEADERS
from serving.gateway.metrics import OTHER
from serving.gateway.telemetry import Telemetry, continued

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""W3C Trace Context, level 1, section 3.2."""
OPERATIONS = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: not traced, and logged at level ``debug``."""
UNKNOWN_METHOD = "_OTHER"
"""OpenTelemetry's name for every method that is not served."""
CLIENT_LEFT = 499
"""Status, in metrics and logs, of requests whose client left before the answer began."""

log = logging.getLogger(__name__)


def given_ids(scope: Scope) -> dict[str, str]:
    """``x-request-id``, the client's where it is well formed or else a new one, and a well-formed
    ``traceparent`` if the client sent one."""
    given = Headers(scope=scope)
    request_id, trace = given.get("x-request-id", ""), given.get("traceparent", "")
    ids = {"x-request-id": request_id}
    if not _REQUEST_ID.fullmatch(request_id):
        ids["x-request-id"] = secrets.token_hex(16)
    if _TRACEPARENT.fullmatch(trace):
        ids["traceparent"] = trace
    return ids


class Envelope:
    """ASGI middleware around the whole application.

    Args:
        app: what is inside.
        telemetry: where requests are counted and traced.
        max_body_bytes: the largest body that is read.
        methods: by path, the methods that are served; filled before the first request. No path
            here has parameters, so the path itself is the metric's label.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        max_body_bytes: int,
        methods: Mapping[str, frozenset[str]],
    ) -> None:
        self._app, self._telemetry, self._max_body_bytes = app, telemetry, max_body_bytes
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        methods = self._methods.get(scope["path"], frozenset())
        method = scope["method"] if scope["method"] in methods else UNKNOWN_METHOD
        route = scope["path"] if methods else OTHER
        ids = given_ids(scope)
        with self._telemetry.request(method, route, ids, route not in OPERATIONS) as span:
            headers = continued(ids, span)
            headers.setdefault("traceparent", _new_trace())
            TRACE_HEADERS.set(headers)
            state = scope.setdefault("state", {})
            state |= {"trace_headers": headers, "start": start}
            status = await self._answer(scope, receive, send, headers)
            error: GatewayError | None = state.get("error")
            if error:  # also of an answer that broke off after its status had been sent
                status = error.status
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
        seconds = time.perf_counter() - start
        self._telemetry.metrics.requests.labels(route, method, str(status)).observe(seconds)
        if error:
            log.debug("%s: %s", error.code, error.message)
        facts = {"route": route, "method": method, "status": status, "seconds": round(seconds, 6)}
        log.log(
            _level(route, status),
            "request",
            extra=facts | ({"error": error.code} if error else {}),
        )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> int:
        """Answer a request, whatever happens.

        Returns:
            The status that was sent, or ``CLIENT_LEFT``.
        """
        status = CLIENT_LEFT

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(headers)
            await send(message)

        async def send_error(error: GatewayError) -> None:
            scope["state"]["error"] = error
            start = [(b"content-type", b"application/json")]
            start += [(k.encode(), v.encode()) for k, v in error.headers.items()]
            await send_with_ids(
                {"type": "http.response.start", "status": error.status, "headers": start}
            )
            await send_with_ids({"type": "http.response.body", "body": error.bytes()})

        known = scope["method"] in self._methods.get(scope["path"], ())
        try:
            body = await self._read(scope, receive) if known and scope["method"] == "POST" else b""
            await self._run(scope, body, receive, send_with_ids)
        except GatewayError as error:
            await send_error(error)
        except Exception:  # the process's edge: a bug must still answer in the one error shape
            if "error" in scope["state"]:  # it broke off, and is being counted as that
                return status
            log.exception("a request failed")
            if status == CLIENT_LEFT:
                await send_error(GatewayError("internal error"))
            scope["state"]["error"] = GatewayError("internal error")
        return status

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


def _new_trace() -> str:
    """The ``traceparent`` of a trace that begins here and is recorded nowhere here."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _level(route: str, status: int) -> int:
    if route in OPERATIONS:
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO
