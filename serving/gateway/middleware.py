"""What surrounds every request: limits, metrics, log record, span and error handling."""

import asyncio
import logging
import time

from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.access import HEALTH, METRICS, Access
from serving.gateway.errors import CLIENT_LEFT, GatewayError, Overloaded, RouteError, Stopping
from serving.gateway.exchange import Exchange
from serving.gateway.metrics import OTHER, UNKNOWN_METHOD
from serving.gateway.server import Drain
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import Telemetry, describe

OPERATIONS = (*HEALTH, METRICS)
"""Polled by machines every few seconds: not traced, and logged at level ``debug``."""
OPENAI_ROUTES = "GET /v1/models, POST /v1/completions and POST /v1/chat/completions"
"""What there is of OpenAI's API."""

log = logging.getLogger(__name__)


class RequestMiddleware:
    """Creates each request's ``Exchange``, and returns all errors in the common format.

    Args:
        app: the wrapped ASGI application.
        telemetry: receives request metrics and traces.
        settings: gateway settings.
        drain: whether answers should close their connections.
        access: who may ask.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        settings: GatewaySettings,
        drain: Drain,
        access: Access,
    ) -> None:
        self._app, self._telemetry, self._settings = app, telemetry, settings
        self._drain, self._access = drain, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._settings, self._drain)
        if b"range" in exchange.head:  # may be ignored (section 14.2)
            scope = {**scope, "headers": [h for h in scope["headers"] if h[0] != b"range"]}
        if scope["method"] == "HEAD":  # answered as GET (RFC 9110, section 9.3.2) ...
            scope = {**scope, "method": "GET"}  # ... and the server drops the body
        scope["exchange"] = exchange
        name = "" if scope["path"] in OPERATIONS else "HTTP"
        with self._telemetry.request(name, exchange.headers) as span:
            exchange.trace(span)
            await self._answer(scope, exchange)
            route, method = self._matched(scope)
            status = exchange.status
            if error := exchange.error:  # it takes precedence over a status that was sent before it
                status = error.counted_status or error.status
            if span.is_recording():
                describe(span, method, route, status)
        seconds = time.perf_counter() - exchange.start
        metrics = self._telemetry.metrics
        metrics.requests.labels(route, method, str(status)).observe(seconds)
        facts = {"route": route, "method": method, "status": status, "seconds": round(seconds, 6)}
        if key := exchange.caller.name:
            metrics.key_requests.labels(key, str(status)).inc()
            facts["key"] = key
        if error:
            log.debug("%s: %s", error.code, error.message, extra=exchange.log_fields)
            facts["error"] = error.code
        log.log(_level(route, status), "request", extra=facts | exchange.log_fields)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        """Run the application and handle errors; a client disconnect ends the request."""
        try:
            exchange.caller = caller = self._access.at_door(scope, exchange.head)
            async with caller.asking(exchange.limits):
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.has_left:
                if not self._drain.is_leaving:
                    raise
                exchange.error = Stopping("the gateway has stopped; try again elsewhere")
            exchange.work.uncancel()
        except GatewayError as failure:
            exchange.error = failure
        except HTTPException as failure:  # Starlette's 404 and 405
            exchange.error = _no_route(scope, failure)
        except Exception:  # process boundary: a bug must still yield the common error format
            if not exchange.error:  # else it is a consequence of the recorded error
                log.exception("a request failed", extra=exchange.log_fields)
                exchange.error = GatewayError("internal error")
        finally:
            exchange.end()
        if exchange.error and exchange.status == CLIENT_LEFT:  # it has not been sent
            await exchange.fail(exchange.error)

    def _matched(self, scope: Scope) -> tuple[str, str]:
        """Return route path and method as labels, without client-controlled values: of a path's
        parameters the names."""
        route, method = scope.get("route"), str(scope["method"])
        if isinstance(route, Route):
            return route.path, method if method in (route.methods or ()) else UNKNOWN_METHOD
        return OTHER, UNKNOWN_METHOD  # no route, or the folder with the API page's files


def _no_route(scope: Scope, error: HTTPException) -> RouteError:
    path = scope["path"]
    hint = f"there are {OPENAI_ROUTES}" if path.startswith("/v1/") else "see /docs"
    message = f"{scope['method']} {path[:200]}: {error.detail}; {hint}"
    return RouteError(error.status_code, message, (error.headers or {}).get("Allow"))


def _level(route: str, status: int) -> int:
    if route in OPERATIONS or status == Overloaded.status:  # a flood must not fill the log
        return logging.DEBUG
    return logging.WARNING if status >= 500 else logging.INFO
