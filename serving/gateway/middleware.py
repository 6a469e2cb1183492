"""What surrounds every request: limits, metrics, the log line, the span, and the last line of
defence."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.errors import GatewayError
from serving.gateway.exchange import CLIENT_LEFT, Exchange
from serving.gateway.metrics import OTHER
from serving.gateway.telemetry import Telemetry, describe

OPERATIONS = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: not traced, and logged at level ``debug``."""
UNKNOWN_METHOD = "_OTHER"
"""OpenTelemetry's name for every method that is not served."""

log = logging.getLogger(__name__)


class RequestMiddleware:
    """Makes each request's ``Exchange``, and answers every error in the one shape.

    Args:
        app: what answers.
        telemetry: where requests are counted and traced.
        max_body_bytes: the largest body that is read.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, max_body_bytes: int) -> None:
        self._app, self._telemetry, self._max_body_bytes = app, telemetry, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._max_body_bytes)
        scope["exchange"] = exchange
        name = "" if scope["path"] in OPERATIONS else "HTTP"
        with self._telemetry.request(name, exchange.headers) as span:
            exchange.trace(span)
            await self._answer(scope, exchange)
            route, method = _matched(scope)
            # An error's status counts, also that of an answer that broke off after another's.
            status = exchange.error.status if exchange.error else exchange.status
            if span.is_recording():
                describe(span, method, route, status)
        seconds = time.perf_counter() - exchange.start
        self._telemetry.metrics.requests.labels(route, method, str(status)).observe(seconds)
        facts = {"route": route, "method": method, "status": status, "seconds": round(seconds, 6)}
        if error := exchange.error:
            log.debug("%s: %s", error.code, error.message, extra=exchange.log_fields)
            facts["error"] = error.code
        log.log(_level(route, status), "request", extra=facts | exchange.log_fields)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        """Have the request answered; a client that leaves ends it."""
        work = asyncio.current_task()
        assert work
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.has_left:
                raise
            work.uncancel()
        except GatewayError as failure:
            exchange.error = failure
        except Exception:  # the process's edge: a bug must still answer in the one error shape
            if not exchange.error:  # or it broke off, and that is why
                log.exception("a request failed", extra=exchange.log_fields)
                exchange.error = GatewayError("internal error")
        finally:
            exchange.end()
        if exchange.error and exchange.status == CLIENT_LEFT:
            await exchange.fail(exchange.error)


def _matched(scope: Scope) -> tuple[str, str]:
    """The path of the route that was found and the method, as labels: nothing that a client sets.
    No path here has parameters."""
    route = scope.get("route")
    if route is None:
        return OTHER, UNKNOWN_METHOD
    method: str = scope["method"]
    return route.path, method if method in route.methods else UNKNOWN_METHOD


def _level(route: str, status: int) -> int:
    if route in OPERATIONS:
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO
