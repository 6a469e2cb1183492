"""uvicorn's HTTP protocol, which refuses by itself what cannot be answered in time.

Under ten times the load, nine of ten requests are refused. A task, a scope and the application's
layers for each would take from those that are answered a third of what the machine can do.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypedDict

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.gateway.errors import GatewayError, Overloaded
from serving.gateway.head import Head, with_trace
from serving.gateway.metrics import Metrics

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
    """A connection. A request that it refuses never reaches the application; it has a metric and
    a log record like all others, but no span."""

    app_state: State  # type: ignore[assignment]
    _refusal = b""
    """The response to the request that is being read, if it is refused."""

    def on_headers_complete(self) -> None:
        self._refusal = self._refused()
        if not self._refusal:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refusal:
            super().on_body(body)

    def on_message_complete(self) -> None:
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
            return self._response(error, head, start)
        except GatewayError:
            pass
        return b""

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
        )

    def _response(self, error: Overloaded, head: Head, start: float) -> bytes:
        ids = with_trace(head.ids())
        headers, body = error.response()
        headers += [(name.encode(), value.encode()) for name, value in ids.items()]
        lines = [b"%s: %s\r\n" % each for each in [*self.server_state.default_headers, *headers]]
        path, seconds = self.url.decode(), time.perf_counter() - start
        self.app_state["metrics"].requests.labels(path, "POST", str(error.status)).observe(seconds)
        log.debug("%s: %s", error.code, error.message, extra={"route": path, **ids})
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])
