"""uvicorn's HTTP protocol, with two additions.

It refuses by itself what cannot be answered in time. Under ten times the load, nine of ten requests
are refused; a task, a scope and the application's layers for each would take from those that are
answered a third of what the machine can do.

It declines offers of another protocol, which Java's HTTP client makes by default. The parser stops
at an offer and drops the body (https://github.com/Kludex/uvicorn/issues/2722).
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypedDict

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.gateway.errors import GatewayError, MalformedRequest, Overloaded
from serving.gateway.head import Head, with_trace
from serving.gateway.metrics import OTHER, UNKNOWN_METHOD, Metrics

SHORT_BYTES = 2**16
"""Longest body that is read here, only to be dropped."""

log = logging.getLogger(__name__)

Gate = Callable[[Head], None]
"""Raises a GatewayError if a request that comes now cannot be answered."""


class State(TypedDict):
    """What the application's start leaves for the protocol (ASGI's lifespan state)."""

    gates: Mapping[bytes, Gate]
    """By path of a POST."""
    metrics: Metrics


class Protocol(HttpToolsProtocol):
    """A connection. What it answers itself never reaches the application; it has a metric and a
    log record like all else, but no span."""

    app_state: State  # type: ignore[assignment]
    _is_offer = False
    """Whether the request that is being read offers another protocol."""
    _refusal = b""
    """The response to the request that is being read, if it is refused."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response("CONNECT is not served")
                return
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(head + data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self.send_400_response(f"not HTTP/1.1: {error}")

    def _head_without_offer(self) -> bytes:
        """Return the head that was read last, as if it had offered nothing (RFC 9110,
        section 7.8)."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            tokens = value.split(b",") if name == b"connection" else [value]
            kept = [token for token in tokens if token.strip().lower() != b"upgrade"]
            lines.append(b"%s: %s\r\n" % (name, b",".join(kept)))
        return b"".join([*lines, b"\r\n"])

    def on_headers_complete(self) -> None:
        self._is_offer = self.parser.should_upgrade()
        if self._is_offer:
            return
        self._refusal = self._refused()
        if not self._refusal:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_offer:
            return
        if not self._refusal:
            super().on_message_complete()
            return
        self.transport.write(self._refusal)
        self.on_response_complete()

    def _refused(self) -> bytes:
        """Return the response to a request that is refused because others wait, else nothing. What
        is rare, and all other errors, are left to the application."""
        gate = self.app_state["gates"].get(self.url)
        is_free = self.cycle is None or self.cycle.response_complete
        if not gate or not is_free or self.flow.write_paused or not self._is_plain():
            return b""
        start, head = time.perf_counter(), Head(self.headers)
        if not 0 < head.length <= SHORT_BYTES:
            return b""
        try:
            gate(head)
        except Overloaded as error:
            return self._response(error, head, start, self.url.decode(), "POST")
        except GatewayError:
            pass
        return b""

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
        )

    def send_400_response(self, msg: str) -> None:
        error, start = MalformedRequest(msg), time.perf_counter()
        self.transport.write(self._response(error, Head([]), start, OTHER, UNKNOWN_METHOD))
        self.transport.close()

    def _response(
        self, error: GatewayError, head: Head, start: float, route: str, method: str
    ) -> bytes:
        """Return ``error`` as a response, and take note of it."""
        ids = with_trace(head.ids())
        headers, body = error.response()
        headers += [(name.encode(), value.encode()) for name, value in ids.items()]
        lines = [b"%s: %s\r\n" % each for each in [*self.server_state.default_headers, *headers]]
        seconds = time.perf_counter() - start
        requests = self.app_state["metrics"].requests
        requests.labels(route, method, str(error.status)).observe(seconds)
        log.debug("%s: %s", error.code, error.message, extra={"route": route, **ids})
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])
