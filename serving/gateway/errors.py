"""All errors that a client can receive.

    GatewayError              500  a bug in the gateway
    ├── InvalidRequest        422  a field is missing, unknown or out of range
    ├── MalformedRequest      400  not HTTP
    ├── HeadTooLarge          414, 431
    ├── MalformedBody         400  not JSON
    ├── Unauthorized          401  no API key, or none that is known
    ├── Forbidden             403  the API key is not for this
    ├── RequestTimeout        408  the request did not come in time
    ├── LimitReached          429  the API key's own limit
    ├── TooManyConnections    429  of one client, or of all
    ├── UnsupportedMediaType  415  not application/json
    ├── NotAcceptable         406  no supported answer format matches Accept
    ├── BodyTooLarge          413
    ├── RouteError            404, 405
    ├── ModelNotFound         404
    ├── Overloaded            429  it cannot be answered in time: others wait
    ├── Stopping              503  this gateway is stopping
    ├── EngineUnavailable     503  the engine is down or not ready
    │   └── EngineSilent      503  the engine does not accept connections
    ├── EngineTimeout         504
    ├── DeadlineExceeded      504  the caller's own deadline passed
    ├── EngineRefused         4xx  the engine refused a pass-through request
    ├── EngineFault           502  the engine failed on this request, or its response is invalid
    └── WrongAnswer           502  the answer failed the semantic check

All use OpenAI's error format: {"error": {"message", "type", "param", "code"}}.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

CLIENT_LEFT = 499
"""Status in metrics and logs if the client disconnected before the response started."""


class GatewayError(Exception):
    """An error with an HTTP status. Each class defines whether a retry can help."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    counted_status: int | None = None
    """Status in metrics and logs, if not ``status``."""
    retry_after_seconds: int | None = None
    """Set if the same request can succeed later."""
    engine_error: ClassVar[str | None] = None
    """The ``kind`` label in metrics if the engine caused the error, else None."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param

    @property
    def headers(self) -> Mapping[str, str]:
        if self.retry_after_seconds is None:
            return {}
        return {"retry-after": str(self.retry_after_seconds)}

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encoded(self) -> bytes:
        """Encode ``body`` as UTF-8 JSON; lone surrogates, which JSON allows, become ``?``."""
        return json.dumps(self.body(), ensure_ascii=False).encode(errors="replace")

    def response(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return headers and body."""
        body = self.encoded()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.encode(), value.encode()) for name, value in self.headers.items()),
        ]
        return headers, body


class ClientError(GatewayError):
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    status, code = 422, "invalid_value"


class MalformedRequest(ClientError):
    status, code = 400, "invalid_http"


class HeadTooLarge(ClientError):
    """The URL (414) or the headers (431) are too long."""

    code = "head_too_large"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MalformedBody(ClientError):
    status, code = 400, "invalid_json"


class Unauthorized(ClientError):
    status, code = 401, "invalid_api_key"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(ClientError):
    status, code = 403, "forbidden"


class RequestTimeout(ClientError):
    status, code = 408, "request_timeout"


class TooManyConnections(ClientError):
    status, type, code = 429, "rate_limit_error", "too_many_connections"
    retry_after_seconds = 1


class LimitReached(ClientError):
    """The caller's own limit; ``seconds`` until it is not."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = max(1, math.ceil(seconds))


class UnsupportedMediaType(ClientError):
    status, code = 415, "unsupported_media_type"


class BodyTooLarge(ClientError):
    status, code = 413, "body_too_large"


class NotAcceptable(ClientError):
    status, code = 406, "not_acceptable"


class RouteError(ClientError):
    """Unknown route, or wrong method; ``allowed`` lists the methods in the latter case."""

    def __init__(self, status: int, message: str, allowed: str | None) -> None:
        super().__init__(message)
        self.status, self.code = status, "not_found" if status == 404 else "method_not_allowed"
        self._allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"allow": self._allowed} if self._allowed else {}


class ModelNotFound(ClientError):
    """No such base or adapter; ``served`` lists those that there are."""

    status, code = 404, "model_not_found"

    def __init__(self, name: str, served: Sequence[str]) -> None:
        names = ", ".join(served)
        super().__init__(f"model cannot be {name[:80]!r}; it must be one of {names}", "model")


class Overloaded(GatewayError):
    status, type, code = 429, "rate_limit_error", "overloaded"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Stopping(GatewayError):
    status, type, code = 503, "service_unavailable", "stopping"
    retry_after_seconds = 1


class EngineUnavailable(GatewayError):
    status, type, code = 503, "service_unavailable", "engine_unavailable"
    retry_after_seconds = 2
    engine_error = "unavailable"


class EngineSilent(EngineUnavailable):
    """Connecting took the full timeout. Not retried, because a retry would take as long."""


class EngineTimeout(GatewayError):
    status, type, code = 504, "timeout_error", "engine_timeout"
    retry_after_seconds = 2
    engine_error = "timeout"


class DeadlineExceeded(GatewayError):
    """Counted as if the client had left: nobody else is to blame."""

    status, type, code = 504, "timeout_error", "deadline_exceeded"
    counted_status = CLIENT_LEFT


class EngineRefused(ClientError):
    """The engine's 4xx response to a pass-through request, in the common error format."""

    code = "invalid_value"
    engine_error = "refused"

    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message, param)
        self.status = status


class EngineFault(GatewayError):
    status, code = 502, "engine_fault"
    engine_error = "fault"


class WrongAnswer(GatewayError):
    status, code = 502, "answer_rejected"


ENGINE_ERRORS = tuple(
    error.engine_error
    for error in (EngineUnavailable, EngineTimeout, EngineRefused, EngineFault)
    if error.engine_error
)
"""Kinds of errors caused by the engine."""
