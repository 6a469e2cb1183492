"""Per-request state: ids, body, error and response status."""

import asyncio
import codecs
import time
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.trace import Span
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from serving.gateway.access import ANYBODY
from serving.gateway.errors import (
    CLIENT_LEFT,
    BodyTooLarge,
    GatewayError,
    UnsupportedMediaType,
)
from serving.gateway.head import (
    DISCARD_BYTES,
    DISCARD_SECONDS,
    SHORT_BYTES,
    Head,
    log_fields,
    with_trace,
)
from serving.gateway.server import Drain
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import inject


class Exchange:
    """A request and its response.

    Args:
        scope: ASGI scope of an HTTP request.
        receive: ASGI ``receive`` of the server.
        send: ASGI ``send`` of the server.
        settings: gateway settings.
        drain: whether the answer should close its connection.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: GatewaySettings, drain: Drain
    ) -> None:
        self.start, self.head = time.perf_counter(), Head(scope["headers"])
        self._receive, self._send, self._settings = receive, send, settings
        self._drain = drain
        self.headers = self.head.ids()
        """Headers sent to the engine and the client: ``x-request-id``, and ``traceparent`` after
        ``trace`` is called."""
        self.caller = ANYBODY
        """Who asks, once it is known."""
        self.limits: dict[str, str] = {}
        """Headers of the answer that tell what the caller's limits leave."""
        self.error: GatewayError | None = None
        """The error that occurred before or during the response."""
        self.status = CLIENT_LEFT
        """The status sent, or ``CLIENT_LEFT`` until one is sent."""
        work = asyncio.current_task()
        assert work
        self.work: asyncio.Task[object] = work
        """The task that answers it."""
        self._has_more = True
        """Whether more of the body is to be read."""
        self._left = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        """Ids for log records."""
        return log_fields(self.headers)

    @property
    def has_left(self) -> bool:
        """Whether the client has disconnected."""
        return self._left.is_set()

    async def body(
        self, kinds: Sequence[str] = ("application/json",), max_bytes: int | None = None
    ) -> bytes:
        """Read the full body. Afterwards, a client disconnect cancels the request.

        Args:
            kinds: the media types to accept.
            max_bytes: how long it may be, if not ``GATEWAY_MAX_BODY_BYTES``.

        Raises:
            UnsupportedMediaType: the content type is another, or the body is compressed.
            BodyTooLarge: the body is longer.
            CancelledError: the client has left.
        """
        kind, most = self.head.content_type, max_bytes or self._settings.max_body_bytes
        if kind.decode("latin-1") not in kinds:
            shown = repr(kind[:80].decode("latin-1")) if kind else "missing"
            raise UnsupportedMediaType(f"content-type is {shown}; send {' or '.join(kinds)}")
        if encoding := self.head.content_encoding:
            shown = repr(encoding[:80].decode("latin-1"))
            raise UnsupportedMediaType(f"content-encoding is {shown}; send the body uncompressed")
        length, body = self.head.length, bytearray()
        while self._has_more and max(length, len(body)) <= most:
            body += await self._read()
            if self.has_left:
                raise asyncio.CancelledError
        if max(length, len(body)) > most:
            raise BodyTooLarge(f"the body may have at most {most} bytes")
        self._watcher = asyncio.create_task(self._watch())
        return bytes(body.removeprefix(codecs.BOM_UTF8))

    async def _read(self) -> bytes:
        """Return the next part of the body."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left.set()
        self._has_more = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _discard(self) -> None:
        """Read what is left of the body, within limits, unless the server will, or the client waits
        to be asked for it (RFC 9110, section 10.1.1)."""
        stays = b"connection" not in self.head and not self._drain.is_leaving
        if b"expect" in self.head or (stays and 0 < self.head.length <= SHORT_BYTES):
            return
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self._has_more and size < DISCARD_BYTES:
                    size += len(await self._read())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        self.work.cancel()

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
            told = {**self.headers, **self.limits}
            ids = [(name.encode(), value.encode()) for name, value in told.items()]
            if self._drain.is_leaving:
                ids.append((b"connection", b"close"))
            message["headers"] = [*message["headers"], *ids]
        await self._send(message)

    async def fail(self, error: GatewayError) -> None:
        """Send ``error`` as the response."""
        await self._discard()
        headers, body = error.response()
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def trace(self, span: Span) -> None:
        """Continue the client's trace, or start a new one. If ``span`` is recorded, it becomes the
        parent of the engine's spans."""
        inject(self.headers, span)
        self.headers = with_trace(self.headers)


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that ``RequestMiddleware`` created for ``request``."""
    found = request.scope["exchange"]
    assert isinstance(found, Exchange)
    return found
