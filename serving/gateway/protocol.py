"""uvicorn's HTTP protocol, with three additions.

It refuses by itself what cannot be answered in time. Under ten times the load, nine of ten requests
are refused; a task, a scope and the application's layers for each would take from those that are
answered a third of what the machine can do.

It declines offers of another protocol, which Java's HTTP client makes by default. The parser stops
at an offer and drops the body (https://github.com/Kludex/uvicorn/issues/2722).

It bounds what a connection may take: how many an address may have, the size of a head, and the time
in which a request comes and its answer is read.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypedDict

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.gateway.errors import (
    GatewayError,
    HeadTooLarge,
    MalformedRequest,
    Overloaded,
    RequestTimeout,
    TooManyConnections,
    Unauthorized,
)
from serving.gateway.head import DISCARD_SECONDS, SHORT_BYTES, Head, log_fields, with_trace
from serving.gateway.metrics import OTHER, UNKNOWN_METHOD, Metrics
from serving.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)


MOST_URL_BYTES, MOST_HEAD_BYTES, MOST_HEADERS = 2**13, 2**16, 100


class Gate(NamedTuple):
    """What a route can say of a request before its body is read."""

    is_open: Callable[[], bool]
    """Return whether nobody waits; no request is then refused because of others."""
    refuse: Callable[[Head], None]
    """Raise a GatewayError if a request that comes now cannot be answered."""


class State(TypedDict):
    """What the application's start leaves for the protocol (ASGI's lifespan state)."""

    gates: Mapping[bytes, Gate]
    """By path of a POST."""
    metrics: Metrics
    room: "Room"


class Room:
    """Counts connections."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._most = settings.max_connections
        self._most_of_one = settings.max_connections_per_client
        self.seconds = settings.request_seconds
        """In which a request has to come, and a part of an answer to be read."""
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection; return whether there was room for it."""
        self._by_address[address] += 1
        is_one_too_many = self._by_address[address] > self._most_of_one
        return not (is_one_too_many or self._by_address.total() > self._most)

    def leave(self, address: str) -> None:
        """Count a connection no more."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class _Refusal(NamedTuple):
    error: GatewayError
    head: Head
    start: float
    route: str = OTHER
    method: str = UNKNOWN_METHOD


class Protocol(HttpToolsProtocol):
    """A connection. What it answers itself never reaches the application; it has a metric and a
    log record like all else, but no span."""

    app_state: State  # type: ignore[assignment]
    _is_offer = False
    """Whether the request that is being read offers another protocol."""
    _has_ended = False
    """Whether nothing more is read; what still comes is discarded."""
    _last_error: GatewayError | None = None
    """What is still to be answered then."""
    _unanswered = 0
    """Requests that have reached the application and are not answered."""
    _running: RequestResponseCycle | None = None
    """The one that is being answered, or was last."""
    _reads_head, _head_bytes = False, 0
    """Whether a head is being read, and how much of it has come."""
    _refusal: _Refusal | None = None
    """Why the request that is being read is refused."""
    _since: float | None = None
    """When the request that is being read began, or the wait for the first one."""
    _watch: asyncio.TimerHandle | None = None
    """Looks whether it has taken too long. One for all requests of a connection: a timer for each
    would take a hundredth of its time."""
    _reading: asyncio.TimerHandle | None = None
    """When the client has to have read of the answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._room, self._address = self.app_state["room"], self.client[0] if self.client else ""
        if self._room.enter(self._address):
            self._since = self.loop.time()
            self._watch_request()
        else:
            self._end(TooManyConnections("there are too many connections; try again later"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)
        self._running = cycle

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._running:  # uvicorn tells the newest alone
            _abandon(self._running)
        self._room.leave(self._address)
        for timer in (self._watch, self._reading):
            if timer:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self._room.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading:
            self._reading.cancel()

    def _watch_request(self) -> None:
        waited = 0.0 if self._since is None else self.loop.time() - self._since
        left = self._room.seconds - waited
        if left > 0:
            self._watch = self.loop.call_later(left, self._watch_request)
        elif self._reads_head or self._is_answering():
            self._end(RequestTimeout(f"no request within {self._room.seconds:g} s"))
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._has_ended:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = self._feed(rest)
            if self._reads_head:  # what is not complete is counted by what came
                self._head_bytes += len(data)
                self._limit_head(self._head_bytes)
        except httptools.HttpParserError as error:
            self._end(_blamed(error))
        except HeadTooLarge as error:
            self._end(error)

    def _feed(self, data: memoryview) -> memoryview:
        """Parse ``data`` up to an offer, which is read again as if it were none (RFC 9110, section
        7.8); return the rest."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("CONNECT is not served") from None
            request = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            kept = [b"%s: %s\r\n" % each for each in self.headers if each[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(b"".join([b"%s %s HTTP/%s\r\n" % request, *kept, b"\r\n"]))
            return data[offer.args[0] :]
        return data[:0]

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()  # a refusal before it in the same data has set it
        self._reads_head, self._head_bytes = True, 0
        self._since = self.loop.time()
        super().on_message_begin()

    def _limit_head(self, size: int) -> None:
        if len(self.url) > MOST_URL_BYTES:
            raise HeadTooLarge(414, f"the URL may have at most {MOST_URL_BYTES} bytes")
        if len(self.headers) > MOST_HEADERS:
            raise HeadTooLarge(431, f"there may be at most {MOST_HEADERS} headers")
        if size > MOST_HEAD_BYTES:
            raise HeadTooLarge(431, f"the headers may have at most {MOST_HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        self._reads_head = False
        self._limit_head(sum(len(name) + len(value) for name, value in self.headers))
        self._is_offer = self.parser.should_upgrade()
        if self._is_offer:
            return
        self._refusal = self._refused()
        if not self._refusal:
            self.url = _with_path(self.url)
            super().on_headers_complete()
            self._unanswered += 1

    def on_body(self, body: bytes) -> None:
        if not self._refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_offer:
            return
        self._since = None
        if not self._refusal:
            super().on_message_complete()
            return
        self._send(self._refusal)
        super().on_response_complete()

    def _refused(self) -> _Refusal | None:
        """Return why a request is refused, if it is because others wait. What is rare, and all
        other errors, are left to the application."""
        gate = self.app_state["gates"].get(self.url)
        if (
            not gate
            or gate.is_open()
            or self._is_answering()
            or self.flow.write_paused
            or not self._is_plain()
        ):
            return None
        start, head = time.perf_counter(), Head(self.headers)
        if not 0 < head.length <= SHORT_BYTES:
            return None
        try:
            gate.refuse(head)
        except (Overloaded, Unauthorized) as error:
            return _Refusal(error, head, start, self.url.decode(), "POST")
        except GatewayError:
            pass
        return None

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
        )

    def _end(self, error: GatewayError) -> None:
        """Answer what cannot be read any further, once what came before it has been answered."""
        self._has_ended, last = True, self.cycle
        if self._watch:
            self._watch.cancel()
        if self._is_answering() and last.more_body:  # the error is in its body, and is its answer
            if self.pipeline and self.pipeline[0][0] is last:
                self.pipeline.popleft()
            _abandon(last)
            self._unanswered -= 1
        if self._unanswered:
            self._last_error = error
        else:
            self._close(error)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unanswered -= 1
        if self._last_error and not self._unanswered:
            self._close(self._last_error)

    def _close(self, error: GatewayError) -> None:
        """Send a last answer and close the connection: our side at once, all of it when the client
        has closed its own. Data that came after a close would reset it, and the answer be lost."""
        self._last_error = None
        if self.transport.is_closing():
            return
        self._send(_Refusal(error, Head([]), time.perf_counter()), closes=True)
        if self.transport.can_write_eof():  # not with TLS, which says so itself
            with suppress(OSError):  # the client has left
                self.transport.write_eof()
        self.loop.call_later(DISCARD_SECONDS, self.transport.close)

    def _send(self, refusal: _Refusal, closes: bool = False) -> None:
        error, head, start, route, method = refusal
        ids = with_trace(head.ids())
        headers, body = error.response()
        headers += [(name.encode(), value.encode()) for name, value in ids.items()]
        headers += [(b"connection", b"close")] if closes else []
        lines = [b"%s: %s\r\n" % each for each in [*self.server_state.default_headers, *headers]]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        requests = self.app_state["metrics"].requests.labels(route, method, str(error.status))
        requests.observe(time.perf_counter() - start)
        log.debug("%s: %s", error.code, error.message, extra={"route": route, **log_fields(ids)})


def _with_path(url: bytes) -> bytes:
    """Return ``url``, with a path if it is one of another host's that has none (RFC 9110, section
    4.2.3)."""
    if url.startswith(b"/"):
        return url
    parsed = httptools.parse_url(url)
    return url if parsed.path else b"/" + (b"?" + parsed.query if parsed.query else b"")


def _abandon(cycle: RequestResponseCycle) -> None:
    """Tell who answers that nobody waits for it."""
    cycle.disconnected, cycle.waiting_for_100_continue = True, False
    cycle.message_event.set()


def _blamed(error: httptools.HttpParserError) -> GatewayError:
    """Return whose mistake it was: the caller's, or that of our code which the parser called."""
    cause = error.__context__
    if isinstance(cause, HeadTooLarge):
        return cause
    is_ours = isinstance(error, httptools.HttpParserCallbackError)
    if is_ours and not isinstance(cause, httptools.HttpParserError):
        log.error("a request failed", exc_info=cause)
        return GatewayError("internal error")
    return MalformedRequest(f"not HTTP/1.1: {error}")
