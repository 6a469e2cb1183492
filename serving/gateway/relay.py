"""``/v1/completions``: proxy to the engine. Requests are checked and forwarded unchanged; responses
are too, except that errors get the common format."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi.responses import Response, StreamingResponse

from serving.gateway.admission import Admission
from serving.gateway.completions import CompletionRequest, places
from serving.gateway.deadline import Deadline
from serving.gateway.engine import Engine, Upstream, failure
from serving.gateway.errors import EngineRefused, GatewayError, ModelNotFound
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
            asking = self._ask(asked.model, body, exchange, deadline)
            upstream = await stack.enter_async_context(asking)
            is_stream = upstream.content_type == STREAM
            parts = _events(upstream.chunks) if is_stream else upstream.chunks
            first = await anext(parts, b"")  # what is refused has its status, streamed or not
            self._readiness.progressed()
            if is_stream:
                seconds = time.perf_counter() - exchange.start
                self._metrics.first_token_time.labels(adapter).observe(seconds)
            chunks = self._chunks(stack.pop_all(), first, parts, adapter, exchange)
            return StreamingResponse(chunks, media_type=upstream.content_type)

    @asynccontextmanager
    async def _ask(
        self, model: str, body: bytes, exchange: Exchange, deadline: Deadline
    ) -> AsyncIterator[Upstream]:
        """Send the request to the engine.

        Raises:
            ModelNotFound: the engine has no such model.
        """
        try:
            async with self._engine.completions(body, exchange.headers, deadline) as upstream:
                yield upstream
        except EngineRefused as error:
            if error.status != 404:
                raise
            served = [known.name for known in await self._engine.models()]
            raise ModelNotFound(model, served) from error

    async def _chunks(
        self,
        stack: AsyncExitStack,
        first: bytes,
        parts: AsyncIterator[bytes],
        adapter: str,
        exchange: Exchange,
    ) -> AsyncIterator[bytes]:
        end = first
        try:
            async with stack:
                yield first
                async for part in parts:
                    self._readiness.progressed()
                    end = (end + part)[-_LONGEST_USAGE:]
                    yield part
                self._count(end, adapter)
        except GatewayError as error:
            exchange.error = error
            if not first.startswith(_DATA):
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
    """Split a stream after each event, wherever the network did.

    Raises:
        GatewayError: an event is the engine's error.
    """
    rest = b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).split(_EVENT_END)
        for event in events:
            if event.startswith(_ERROR):
                raise failure(event.removeprefix(_DATA))
            yield event + _EVENT_END
    if rest:
        yield rest
