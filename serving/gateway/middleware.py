"""What surrounds every request: ids, limits on the body, a client that leaves, metrics, and the
last line of defence."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Mapping

from opentelemetry.trace import StatusCode
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

Table = dict[str, dict[str, ASGIApp | None]]
"""By path and method, what answers without further search; None where the application does. No path
here has parameters, so that it is a metric's label itself."""

log = logging.getLogger(__name__)


def _ids(given: Mapping[bytes, bytes]) -> dict[str, str]:
    """``x-request-id``, the client's where it is well formed or else a new one, and a well-formed
    ``traceparent`` if the client sent one."""
    ids = {"x-request-id": given.get(b"x-request-id", b"").decode("latin-1")}
    if not _REQUEST_ID.fullmatch(ids["x-request-id"]):
        ids["x-request-id"] = _new_id(16)
    trace = given.get(b"traceparent", b"").decode("latin-1")
    if _TRACEPARENT.fullmatch(trace):
        ids["traceparent"] = trace
    return ids


class Answer:
    """What is sent to one client, with the request's ids; an ASGI ``send``."""

    def __init__(self, send: Send, ids: Mapping[str, str]) -> None:
        self._send = send
        self._ids = [(name.encode(), value.encode()) for name, value in ids.items()]
        self.status = CLIENT_LEFT
        """The status that was sent, or ``CLIENT_LEFT`` as long as there is none."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._ids]
        await self._send(message)

    async def fail(self, error: GatewayError) -> None:
        """Answer with ``error``."""
        headers = [(b"content-type", b"application/json")]
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self({"type": "http.response.body", "body": error.bytes()})


class Envelope:
    """The whole application, as the server calls it.

    Args:
        app: FastAPI's; answers what ``table`` does not.
        telemetry: where requests are counted and traced.
        max_body_bytes: the largest body that is read.
        table: what answers where; filled before the first request.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        max_body_bytes: int,
        table: Table,
    ) -> None:
        self._app, self._telemetry, self._max_body_bytes = app, telemetry, max_body_bytes
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        answers = self._table.get(scope["path"], {})
        method = scope["method"] if scope["method"] in answers else UNKNOWN_METHOD
        route = scope["path"] if answers else OTHER
        given = dict(reversed(scope["headers"]))  # of two with one name, the first counts
        ids = _ids(given)
        with self._telemetry.request(method, route, ids, route not in OPERATIONS) as span:
            headers = continued(ids, span)
            headers.setdefault("traceparent", _new_trace())
            TRACE_HEADERS.set(headers)
            state = scope.setdefault("state", {})
            state |= {"trace_headers": headers, "start": start}
            answer = Answer(send, headers)
            try:
                if method == "POST":
                    state["body"] = await self._read(given, receive)
                await self._run(answers.get(method) or self._app, scope, receive, answer)
            except GatewayError as failure:
                state["error"] = failure
            except Exception:  # the process's edge: a bug must still answer in the one error shape
                if "error" not in state:  # or it broke off, and that is why
                    log.exception("a request failed")
                    state["error"] = GatewayError("internal error")
            error: GatewayError | None = state.get("error")
            if error and answer.status == CLIENT_LEFT:
                await answer.fail(error)
            # An error's status counts, also that of an answer that broke off after another's.
            status = error.status if error else answer.status
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
        seconds = time.perf_counter() - start
        self._telemetry.metrics.requests.labels(route, method, str(status)).observe(seconds)
        facts = {"route": route, "method": method, "status": status, "seconds": round(seconds, 6)}
        if error:
            log.debug("%s: %s", error.code, error.message)
            facts["error"] = error.code
        log.log(_level(route, status), "request", extra=facts)

    async def _read(self, given: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, within limits, before anything is done with it.

        Raises:
            UnsupportedMediaType: a body that is not called JSON.
            BodyTooLarge: more than ``max_body_bytes``.
        """
        kind = given.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            shown = repr(kind[:80].decode("latin-1")) if kind else "missing"
            raise UnsupportedMediaType(f"content-type is {shown}; send application/json")
        limit = BodyTooLarge(f"the body may have at most {self._max_body_bytes} bytes")
        length = given.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise limit
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                raise limit
        return body

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run ``app``, and stop it when the client leaves before the answer is sent."""
        work, left = asyncio.current_task(), asyncio.Event()
        assert work

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()
            work.cancel()

        async def disconnect() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        watcher = asyncio.create_task(watch())
        try:
            await app(scope, disconnect, send)
        except asyncio.CancelledError:
            if not left.is_set():
                raise
            work.uncancel()
        finally:
            watcher.cancel()


def _new_trace() -> str:
    """The ``traceparent`` of a trace that begins here and is recorded nowhere here."""
    return f"00-{_new_id(16)}-{_new_id(8)}-01"


def _new_id(size: int) -> str:
    """So many random bytes in hexadecimal; no secret, and so not asked of the operating system."""
    return f"{random.getrandbits(8 * size):0{2 * size}x}"


def _level(route: str, status: int) -> int:
    if route in OPERATIONS:
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO
