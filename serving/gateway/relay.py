"""``/v1/completions``: proxy to the engine. Requests are checked and forwarded unchanged; responses
are too, except that errors get the common format."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi.responses import Response, StreamingResponse

from serving.gateway.admission import Admission
from serving.gateway.completions import CompletionRequest, places
from serving.gateway.engine import Engine, Upstream, failure
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange
from serving.gateway.metrics import OTHER
from serving.gateway.readiness import Readiness
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import Telemetry
from serving.gateway.validation import validated

STREAM = "text/event-stream"
_DATA, _EVENT_END = b"data: ", b"\n\n"
_ERROR = b'data: {"error"'
"""Beginning of vLLM's event for an error after the response has started."""
_USAGE = b'"usage":'
"""Cannot occur inside a JSON string, where quotation marks are escaped."""
_LONGEST_USAGE = 4096
"""Number of trailing bytes searched for usage."""


class Relay:
    """Proxies completions, with metrics by adapter."""

    def __init__(
        self,
        settings: GatewaySettings,
        engine: Engine,
        admission: Admission,
        readiness: Readiness,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._engine, self._admission, self._readiness = engine, admission, readiness
        self._telemetry, self._metrics = telemetry, telemetry.metrics

    async def answer(self, exchange: Exchange) -> Response:
        """Stream the engine's response.

        Raises:
            GatewayError: ClientError, Overloaded, an engine error or EngineRefused.
        """
        deadline = exchange.head.deadline(self._settings.completion_timeout_seconds)
        body = await exchange.body()
        asked = validated(CompletionRequest, body)
        weight = places(asked, self._settings)
        self._readiness.require()
        adapter = asked.model if asked.model in self._readiness.models else OTHER
        async with AsyncExitStack() as stack:
            slot = self._admission.slot(adapter, deadline, weight)
            await stack.enter_async_context(slot)
            stack.enter_context(self._telemetry.stage("engine", adapter))
            upstream = await stack.enter_async_context(
                self._engine.completions(body, exchange.headers, deadline)
            )
            chunks = self._chunks(stack.pop_all(), upstream, adapter, exchange)
            return StreamingResponse(chunks, media_type=upstream.content_type)

    async def _chunks(
        self, stack: AsyncExitStack, upstream: Upstream, adapter: str, exchange: Exchange
    ) -> AsyncIterator[bytes]:
        is_stream = upstream.content_type == STREAM
        parts = _events(upstream.chunks) if is_stream else upstream.chunks
        end, is_first = b"", is_stream
        try:
            async with stack:
                async for part in parts:
                    self._readiness.progressed()
                    if is_stream and part.startswith(_ERROR):
                        raise failure(part.removeprefix(_DATA))
                    end = (end + part)[-_LONGEST_USAGE:]
                    yield part
                    if is_first:
                        seconds = time.perf_counter() - exchange.start
                        self._metrics.first_token_time.labels(adapter).observe(seconds)
                        is_first = False
                self._count(end, adapter)
        except GatewayError as error:
            exchange.error = error
            if not is_stream:
                raise
            yield _DATA + error.encoded() + _EVENT_END

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


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split a stream after each event, wherever the network did."""
    rest = b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).split(_EVENT_END)
        for event in events:
            yield event + _EVENT_END
    if rest:
        yield rest
