"""Per-request state: ids, body, error and response status."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from contextlib import suppress

from opentelemetry.trace import Span
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from serving.gateway.deadline import TIMEOUT, Deadline
from serving.gateway.errors import (
    CLIENT_LEFT,
    BodyTooLarge,
    GatewayError,
    InvalidRequest,
    UnsupportedMediaType,
)
from serving.gateway.server import Drain
from serving.gateway.telemetry import inject

_MILLISECONDS = re.compile(rb"[0-9]{1,9}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""W3C Trace Context, level 1, section 3.2."""
SHORT_BYTES = 2**16
"""A body that uvicorn reads by itself (uvicorn/protocols/http/flow_control.py)."""
DISCARD_BYTES, DISCARD_SECONDS = 2**25, 2.0
"""How much of a refused body is read. A connection that closes with unread data is reset, and its
client does not see the response."""


class Exchange:
    """A request and its response.

    Args:
        scope: ASGI scope of an HTTP request.
        receive: ASGI ``receive`` of the server.
        send: ASGI ``send`` of the server.
        max_body_bytes: maximum request body size.
        drain: whether the answer should close its connection.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int, drain: Drain
    ) -> None:
        self.start, self._came_at = time.perf_counter(), asyncio.get_running_loop().time()
        self._receive, self._send, self._max_body_bytes = receive, send, max_body_bytes
        self._drain = drain
        self._given: Mapping[bytes, bytes] = dict(reversed(scope["headers"]))  # first one wins
        self.headers = self._ids()
        """Headers sent to the engine and the client: ``x-request-id``, and ``traceparent`` after
        ``trace`` is called."""
        self.error: GatewayError | None = None
        """The error that occurred before or during the response."""
        self.status = CLIENT_LEFT
        """The status sent, or ``CLIENT_LEFT`` until one is sent."""
        self._has_more = True
        """Whether more of the body is to be read."""
        self._left = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        """Ids for log records."""
        return {
            "request_id": self.headers["x-request-id"],
            "trace_id": self.headers["traceparent"].split("-")[1],
        }

    @property
    def has_left(self) -> bool:
        """Whether the client has disconnected."""
        return self._left.is_set()

    def deadline(self, seconds: float) -> Deadline:
        """Return the request's deadline: the caller's, or ``seconds`` from its start if that is
        earlier.

        Raises:
            InvalidRequest: the caller's is not a number of milliseconds.
        """
        given = self._given.get(TIMEOUT.encode())
        if given is None:
            return Deadline(self._came_at + seconds)
        if not _MILLISECONDS.fullmatch(given):
            shown = repr(given[:80].decode("latin-1"))
            raise InvalidRequest(f"{TIMEOUT} is {shown}; send milliseconds, such as 2000", TIMEOUT)
        own = int(given) / 1000
        return Deadline(self._came_at + min(own, seconds), is_callers=own < seconds)

    async def body(self) -> bytes:
        """Read the full body. Afterwards, a client disconnect cancels the request.

        Raises:
            UnsupportedMediaType: the content type is not JSON.
            BodyTooLarge: the body exceeds ``max_body_bytes``.
        """
        kind = self._given.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            shown = repr(kind[:80].decode("latin-1")) if kind else "missing"
            raise UnsupportedMediaType(f"content-type is {shown}; send application/json")
        length, body = self._length, b""
        while self._has_more and max(length, len(body)) <= self._max_body_bytes:
            body += await self._read()
        if max(length, len(body)) > self._max_body_bytes:
            raise BodyTooLarge(f"the body may have at most {self._max_body_bytes} bytes")
        work = asyncio.current_task()
        assert work
        self._watcher = asyncio.create_task(self._watch(work))
        return body

    @property
    def _length(self) -> int:
        """Length of the body, as the client says; 0 if it does not."""
        told = self._given.get(b"content-length", b"")
        return int(told) if told.isdigit() else 0

    async def _read(self) -> bytes:
        """Return the next part of the body."""
        message = await self._receive()
        self._has_more = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _discard(self) -> None:
        """Read what is left of the body, within limits, unless the server will, or the client waits
        to be asked for it (RFC 9110, section 10.1.1)."""
        stays = b"connection" not in self._given and not self._drain.is_leaving
        if b"expect" in self._given or (stays and 0 < self._length <= SHORT_BYTES):
            return
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self._has_more and size < DISCARD_BYTES:
                    size += len(await self._read())

    async def _watch(self, work: asyncio.Task[object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        work.cancel()

    def end(self) -> None:
        """Stop watching for a client disconnect."""
        if self._watcher:
            self._watcher.cancel()
            self._watcher = None  # break the reference cycle

    async def receive(self) -> Message:
        """Wait for the disconnect (ASGI ``receive``); the body is read by ``body``."""
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send an ASGI message, with the request's id headers added."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ids = [(name.encode(), value.encode()) for name, value in self.headers.items()]
            if self._drain.is_leaving:
                ids.append((b"connection", b"close"))
            message["headers"] = [*message["headers"], *ids]
        await self._send(message)

    async def fail(self, error: GatewayError) -> None:
        """Send ``error`` as the response."""
        await self._discard()
        body = error.bytes()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _ids(self) -> dict[str, str]:
        """Return the client's ids if well formed; generate a request id if it is not."""
        request_id = self._given.get(b"x-request-id", b"").decode("latin-1")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = _random_hex(16)
        traceparent = self._given.get(b"traceparent", b"").decode("latin-1")
        if not _TRACEPARENT.fullmatch(traceparent):
            return {"x-request-id": request_id}
        return {"x-request-id": request_id, "traceparent": traceparent}

    def trace(self, span: Span) -> None:
        """Continue the client's trace, or start a new one. If ``span`` is recorded, it becomes the
        parent of the engine's spans."""
        inject(self.headers, span)
        self.headers.setdefault("traceparent", f"00-{_random_hex(16)}-{_random_hex(8)}-01")


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that ``RequestMiddleware`` created for ``request``."""
    found = request.scope["exchange"]
    assert isinstance(found, Exchange)
    return found


def _random_hex(size: int) -> str:
    """``size`` random bytes as hex; not security-sensitive."""
    return f"{random.getrandbits(8 * size):0{2 * size}x}"
