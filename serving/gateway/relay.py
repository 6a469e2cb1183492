"""``/v1/completions``: proxy to the engine. Requests are checked and forwarded unchanged; responses
are too, except that errors get the common format."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastapi.responses import Response, StreamingResponse

from serving.gateway.access import Caller
from serving.gateway.admission import Admission, Flow, Usage
from serving.gateway.completions import CompletionRequest, cost
from serving.gateway.deadline import Deadline
from serving.gateway.engine import Engine, Upstream, failure
from serving.gateway.errors import (
    ClientError,
    EngineRefused,
    EngineUnavailable,
    GatewayError,
    ModelNotFound,
)
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
        places, tokens = cost(asked, self._settings)
        exchange.caller.require("models", asked.model)
        await exchange.caller.require_tokens()
        self._readiness.require()
        adapter = asked.model if asked.model in self._readiness.models else OTHER
        async with AsyncExitStack() as stack:
            slot = self._admission.slot(Flow(adapter, exchange.caller.name), deadline, places)
            await stack.enter_async_context(slot)
            charging = _charging(exchange.caller, tokens)
            usage = await stack.enter_async_context(charging)
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
            chunks = self._chunks(stack.pop_all(), first, parts, adapter, usage, exchange)
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
        usage: Usage,
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
                _read_usage(end, usage)
                if usage.tokens:
                    self._metrics.tokens.labels(adapter, "in").inc(usage.prompt_tokens)
                    self._metrics.tokens.labels(adapter, "out").inc(usage.completion_tokens)
        except GatewayError as error:
            exchange.error = error
            if not first.startswith(_DATA):
                raise
            yield _DATA + error.encoded() + _EVENT_END


@asynccontextmanager
async def _charging(caller: Caller, most: int) -> AsyncIterator[Usage]:
    """Charge ``caller`` at the end for what the engine told of it, or else for ``most`` tokens."""
    usage, tokens = Usage(), most
    try:
        yield usage
        tokens = usage.tokens or most
    except (ClientError, EngineUnavailable):  # nothing was computed
        tokens = 0
        raise
    finally:
        await caller.spend(tokens)


def _read_usage(end: bytes, usage: Usage) -> None:
    """Read the tokens that the last bytes of a response tell, if they do."""
    found = end.rpartition(_USAGE)[2]
    with suppress(ValueError, KeyError, TypeError):
        told, _ = json.JSONDecoder().raw_decode(found.decode(errors="replace").lstrip())
        usage.prompt_tokens, usage.completion_tokens = (
            int(told["prompt_tokens"]),
            int(told["completion_tokens"]),
        )


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
