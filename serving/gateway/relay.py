"""``/v1/completions``: pass-through proxy to the engine, without changes in either direction."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi.responses import Response, StreamingResponse

from serving.gateway.admission import Admission
from serving.gateway.engine import Engine, Upstream
from serving.gateway.errors import GatewayError, MalformedBody
from serving.gateway.exchange import Exchange
from serving.gateway.metrics import OTHER
from serving.gateway.readiness import Readiness
from serving.gateway.telemetry import Telemetry

STREAM = "text/event-stream"
_USAGE = b'"usage":'
"""Cannot occur inside a JSON string, where quotation marks are escaped."""
_LONGEST_USAGE = 4096
"""Number of trailing bytes searched for usage."""


class Relay:
    """Proxies completions, with metrics by adapter."""

    def __init__(
        self, engine: Engine, admission: Admission, readiness: Readiness, telemetry: Telemetry
    ) -> None:
        self._engine, self._admission, self._readiness = engine, admission, readiness
        self._telemetry, self._metrics = telemetry, telemetry.metrics

    async def answer(self, exchange: Exchange) -> Response:
        """Stream the engine's response.

        Raises:
            GatewayError: ClientError, Overloaded, an engine error or EngineRefused.
        """
        body = await exchange.body()
        model = _parsed(body).get("model")
        adapter = next((name for name in self._readiness.models if name == model), OTHER)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._admission.slot(adapter))
            stack.enter_context(self._telemetry.stage("engine", adapter))
            upstream = await stack.enter_async_context(
                self._engine.completions(body, exchange.headers)
            )
            chunks = self._chunks(stack.pop_all(), upstream, adapter, exchange)
            return StreamingResponse(chunks, media_type=upstream.content_type)

    async def _chunks(
        self, stack: AsyncExitStack, upstream: Upstream, adapter: str, exchange: Exchange
    ) -> AsyncIterator[bytes]:
        end, is_first = b"", upstream.content_type == STREAM
        try:
            async with stack:
                async for chunk in upstream.chunks:
                    end = (end + chunk)[-_LONGEST_USAGE:]
                    yield chunk
                    if is_first:
                        seconds = time.perf_counter() - exchange.start
                        self._metrics.first_token_time.labels(adapter).observe(seconds)
                        is_first = False
                self._count(end, adapter)
        except GatewayError as error:
            exchange.error = error
            if upstream.content_type != STREAM:
                raise
            yield b"data: " + error.bytes() + b"\n\n"

    def _count(self, end: bytes, adapter: str) -> None:
        """Count the tokens reported in the last bytes of a response."""
        found = end.rpartition(_USAGE)[2]
        try:
            usage, _ = json.JSONDecoder().raw_decode(found.decode(errors="replace").lstrip())
            counts = [("in", usage["prompt_tokens"]), ("out", usage["completion_tokens"])]
        except (ValueError, KeyError, TypeError):
            return
        for direction, number in counts:
            self._metrics.tokens.labels(adapter, direction).inc(number)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise MalformedBody("the body must be a JSON object with model and prompt")
    return parsed
