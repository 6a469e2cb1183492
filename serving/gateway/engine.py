"""The engine as the gateway sees it: a few calls over HTTP, with typed errors.

Knows vLLM's OpenAI-compatible API and nothing of tasks.
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
"""An engine that does not answer its health check for so long hangs."""
KEEP_ALIVE_SECONDS = 3
"""Idle connections are closed here long before vLLM does (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), so that
no request meets a connection that is just being closed."""


@dataclass(frozen=True)
class Completion:
    """What the engine generated, and its count of tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Model:
    """What the engine serves: the base, or an adapter of it."""

    name: str
    created: int
    """Unix time in seconds."""
    is_adapter: bool


class _Card(msgspec.Struct):
    id: str
    created: int
    parent: str | None = None


class _Models(msgspec.Struct):
    """vLLM's answer to ``GET /v1/models``: of it, what is read here."""

    data: list[_Card]


class _Choice(msgspec.Struct):
    text: str


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Completion(msgspec.Struct):
    """vLLM's answer to ``POST /v1/completions``: of it, what is read here."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage


class _Error(msgspec.Struct):
    message: str
    param: str | None = None


class _Failure(msgspec.Struct):
    """vLLM's answer to a request that failed."""

    error: _Error


@dataclass(frozen=True)
class Upstream:
    """An engine answer that is passed through as it comes."""

    content_type: str
    chunks: AsyncIterator[bytes]


class Engine(Protocol):
    """What the gateway needs of an engine."""

    async def models(self) -> list[Model]:
        """The base and the adapters that are loaded.

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout or EngineFault.
        """
        ...

    async def healthy(self) -> bool:
        """Whether the engine answers its health check."""
        ...

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
    ) -> Completion:
        """Generate greedily.

        Args:
            model: base or adapter.
            prompt: text to go on from.
            max_tokens: at most so many.
            regex: the generated text is in this language; None leaves it free.
            headers: passed on (request id, trace).

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout or EngineFault.
        """
        ...

    def completions(
        self, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Upstream]:
        """Pass a ``/v1/completions`` request through.

        Raises:
            GatewayError: on entry, an engine error or EngineRefused; later, while chunks are read,
                EngineUnavailable or EngineTimeout.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class VllmEngine:
    """vLLM's API server at ``url``. Make it inside a running event loop."""

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
            # The gateway wrote this request itself: a refusal is a fault of the deployment.
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
        """The whole answer."""
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
    """A block in which aiohttp's errors become ours."""

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
    """The engine's error answer as one of ours."""
    try:
        error = msgspec.json.decode(body, type=_Failure).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error(body[:200].decode(errors="replace"))
    if status < 500:
        return EngineRefused(status, error.message, error.param)
    return EngineUnavailable(f"the engine failed ({status} {error.message}); try again later")
