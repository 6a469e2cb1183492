"""The engine client: a few HTTP calls with typed errors.

Depends on vLLM's OpenAI-compatible API, but not on tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
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

HEALTH_SECONDS = 2
"""Health check timeout; a slower engine counts as hung."""
KEEP_ALIVE_SECONDS = 3
"""Idle connection timeout. Must be well below vLLM's (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), so that no
request uses a connection that vLLM is closing."""


@dataclass(frozen=True)
class Completion:
    """Generated text and the engine's token counts."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Model:
    """A model served by the engine: the base or an adapter."""

    name: str
    created: int
    """Unix time in seconds."""
    is_adapter: bool


class _Card(msgspec.Struct):
    id: str
    created: int
    parent: str | None = None


class _Models(msgspec.Struct):
    """Response to ``GET /v1/models``; only the fields used here."""

    data: list[_Card]


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
    """Client for a vLLM API server at ``url``. Create it inside a running event loop."""

    def __init__(self, url: str, connect_timeout_seconds: float, timeout_seconds: float) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["accept", "accept-encoding", "user-agent"],
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_timeout_seconds, sock_read=timeout_seconds
            ),
        )

    async def models(self) -> list[Model]:
        body = await self._fetch("GET", "/v1/models")
        try:
            cards = msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFault(f"the engine's list of models cannot be read: {error}") from error
        return [Model(card.id, card.created, card.parent is not None) for card in cards]

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
        with _TRANSLATED:
            async with self._ask("POST", "/v1/completions", body, headers) as response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read())
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
        with _TRANSLATED:
            async with self._ask(method, path, data, headers or {}) as response:
                body = await response.read()
        if response.status >= 400:
            raise _refusal(response.status, body)
        return body

    def _ask(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        sent = {**headers, "content-type": "application/json"} if data is not None else headers
        return self._session.request(method, self._url + path, data=data, headers=sent)


class _Translated:
    """Context manager that converts aiohttp errors into gateway errors."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise EngineSilent("the engine does not answer; try again later") from error
        if isinstance(error, TimeoutError):
            raise EngineTimeout("the engine took too long; try again later") from error
        if isinstance(error, aiohttp.ClientError):
            raise EngineUnavailable("the engine is down; try again later") from error


_TRANSLATED = _Translated()


def _refusal(status: int, body: bytes) -> GatewayError:
    """Convert the engine's error response into a gateway error."""
    try:
        error = msgspec.json.decode(body, type=_Failure).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error(body[:200].decode(errors="replace"))
    if status < 500:
        return EngineRefused(status, error.message, error.param)
    return EngineUnavailable(f"the engine failed ({status} {error.message}); try again later")
