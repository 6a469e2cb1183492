"""The engine client: a few HTTP calls with typed errors.

Depends on vLLM's OpenAI-compatible API, but not on tasks.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import aiohttp
import msgspec

from serving.gateway.errors import (
    EngineFault,
    EngineRefused,
    EngineSilent,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from serving.gateway.settings import GatewaySettings

HEALTH_SECONDS = 2
"""Health check timeout; a slower engine counts as hung."""
BAD_GATEWAY = 502
TASK_PRIORITY = -1
"""The engine's lower numbers go first; what is passed through has 0."""
DEAD = "EngineCore encountered an issue"
"""Beginning of vLLM's message when its engine core has died (vllm/v1/engine/exceptions.py)."""
KEEP_ALIVE_SECONDS = 3
"""Idle connection timeout. Must be well below vLLM's (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), so that no
request uses a connection that vLLM is closing."""


@dataclass(frozen=True)
class Completion:
    """Generated text and the engine's token counts."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Model(msgspec.Struct, frozen=True):
    """A model served by the engine: the base or an adapter."""

    name: str = msgspec.field(name="id")
    created: int
    """Unix time in seconds."""
    parent: str | None = None
    """The base, if this is an adapter."""


class _Models(msgspec.Struct):
    """Response to ``GET /v1/models``; only the fields used here."""

    data: list[Model]


class _Choice(msgspec.Struct):
    text: str


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Completion(msgspec.Struct):
    """Response to ``POST /v1/completions``; only the fields used here."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage


class _Error(msgspec.Struct):
    message: str
    param: str | None = None
    code: int | None = None
    """The HTTP status, which an error within a stream has only here."""


class _Failure(msgspec.Struct):
    """vLLM's error response."""

    error: _Error


@dataclass(frozen=True)
class Upstream:
    """An engine response that is streamed through unchanged."""

    content_type: str
    chunks: AsyncIterator[bytes]


class Engine(Protocol):
    """The engine interface used by the gateway."""

    async def models(self) -> list[Model]:
        """List the base model and the loaded adapters.

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout or EngineFault.
        """
        ...

    async def healthy(self) -> bool:
        """Return whether the engine passes its health check."""
        ...

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
    ) -> Completion:
        """Generate a completion with greedy decoding.

        Args:
            model: name of the base or an adapter.
            prompt: the prompt text.
            max_tokens: maximum number of generated tokens.
            regex: constraint on the generated text; None for unconstrained generation.
            headers: forwarded to the engine (request id, trace).

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout or EngineFault.
        """
        ...

    def completions(
        self, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Upstream]:
        """Forward a ``/v1/completions`` request unchanged.

        Raises:
            GatewayError: on entry, an engine error or EngineRefused; while reading chunks,
                EngineUnavailable or EngineTimeout.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class VllmEngine:
    """Client for the vLLM API server that ``settings`` name. Create it inside a running event
    loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._url = settings.engine
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["accept", "accept-encoding", "user-agent"],
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.connect_timeout_seconds,
                sock_read=settings.engine_timeout_seconds,
            ),
        )

    async def models(self) -> list[Model]:
        body = await self._fetch("GET", "/v1/models")
        try:
            return msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFault(f"the engine's list of models cannot be read: {error}") from error

    async def healthy(self) -> bool:
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await self._fetch("GET", "/health")
        except (GatewayError, TimeoutError):
            return False
        return True

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
    ) -> Completion:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "priority": TASK_PRIORITY,
        }
        if regex is not None:
            body["structured_outputs"] = {"regex": regex}
        data = msgspec.json.encode(body)
        try:
            written = await self._fetch("POST", "/v1/completions", data, headers)
            answer = msgspec.json.decode(written, type=_Completion)
        except EngineRefused as error:
            # The gateway built this request itself, so a refusal is a deployment error.
            raise EngineFault(f"the engine refused a task request: {error.message}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFault(f"the engine's answer is not a completion: {error}") from error
        usage = answer.usage
        return Completion(answer.choices[0].text, usage.prompt_tokens, usage.completion_tokens)

    @asynccontextmanager
    async def completions(self, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Upstream]:
        async with self._ask("POST", "/v1/completions", body, headers) as response:
            yield Upstream(response.content_type, response.content.iter_any())

    async def close(self) -> None:
        await self._session.close()

    async def _fetch(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the full response body."""
        async with self._ask(method, path, data, headers) as response:
            return await response.read()

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; convert aiohttp's errors and the engine's into gateway errors."""
        sent = dict(headers or {})
        if data is not None:
            sent["content-type"] = "application/json"
        url = self._url + path
        try:
            async with self._session.request(method, url, data=data, headers=sent) as response:
                if response.status >= 400:
                    raise failure(await response.read(), response.status)
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise EngineSilent("the engine does not answer; try again later") from error
        except TimeoutError as error:
            raise EngineTimeout("the engine took too long; try again later") from error
        except aiohttp.ClientError as error:
            raise EngineUnavailable("the engine is down; try again later") from error


def failure(body: bytes, status: int = 0) -> GatewayError:
    """Convert vLLM's error into a gateway error: EngineRefused if the request is to blame,
    EngineFault if a live engine failed on it, EngineUnavailable if another attempt may succeed.

    Args:
        body: vLLM's error as JSON.
        status: the response's HTTP status; 0 for an error within a stream.
    """
    try:
        error = msgspec.json.decode(body, type=_Failure).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error(body[:200].decode(errors="replace"), code=BAD_GATEWAY)  # a proxy's
    status = status or error.code or BAD_GATEWAY
    if status < 500:
        return EngineRefused(status, error.message, error.param)
    if status == 500 and error.code == 500 and not error.message.startswith(DEAD):
        return EngineFault(f"the engine failed on this request: {error.message}")
    return EngineUnavailable(f"the engine failed ({status} {error.message}); try again later")
