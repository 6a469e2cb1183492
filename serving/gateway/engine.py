"""The engine client: a few HTTP calls with typed errors.

Depends on vLLM's OpenAI-compatible API, but not on tasks.
"""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import aiohttp
import msgspec

from serving.gateway.deadline import Deadline
from serving.gateway.errors import (
    EngineFault,
    EngineRefused,
    EngineSilent,
    EngineUnavailable,
    GatewayError,
)
from serving.gateway.settings import GatewaySettings
from serving.metrics import engine_steps

HEALTH_SECONDS = 2
"""Timeout of health checks and the like; a slower API server counts as hung."""
BAD_GATEWAY = 502
TASK_PRIORITY, BATCH_PRIORITY = -1, 1
"""The engine's lower numbers go first; what is passed through has 0."""
ABORTED = "abort"
"""vLLM's reason to finish a request that came while it stops: 200, with as much as there was."""
DEAD = "EngineCore encountered an issue"
"""Beginning of vLLM's message when its engine core has died (vllm/v1/engine/exceptions.py)."""
KEEP_ALIVE_SECONDS = 3
"""Idle connection timeout. Must be well below vLLM's (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), so that no
request uses a connection that vLLM is closing."""


@dataclass(frozen=True)
class Completion:
    """Generated text and the engine's counts."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    passes: int
    """Forward passes that generated them."""


class Model(msgspec.Struct, frozen=True):
    """A model served by the engine: the base or an adapter."""

    name: str = msgspec.field(name="id")
    created: int
    """Unix time in seconds."""
    parent: str | None = None
    """The base, if this is an adapter."""
    golden: list[str] | None = None
    """What the adapter decided for its task's examples and edges when it was evaluated."""


class _Models(msgspec.Struct):
    """Response to ``GET /v1/models``; only the fields used here."""

    data: list[Model]


class _Choice(msgspec.Struct):
    text: str
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Drafts(msgspec.Struct):
    """What became of the drafts for one request."""

    num_spec_steps: int
    num_accepted_draft_tokens: int

    def passes(self, tokens: int) -> int:
        """Return the forward passes that generated ``tokens``: each yields a token beyond the
        drafts it accepts, but for the last if the end was drafted. Then the first pass
        (``vllm_plugin.patches.first``) and those with a draft are counted, which is one too few if
        another had none."""
        return max(tokens - self.num_accepted_draft_tokens, self.num_spec_steps)


class _Metrics(msgspec.Struct):
    speculative_decoding: _Drafts | None = None


class _Completion(msgspec.Struct):
    """Response to ``POST /v1/completions``; only the fields used here."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage
    metrics: _Metrics | None = None


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

    async def steps(self) -> float:
        """Return the number of steps that the engine's cores have made.

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout or EngineFault.
        """
        ...

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
        deadline: Deadline,
        priority: int = TASK_PRIORITY,
    ) -> Completion:
        """Generate a completion with greedy decoding.

        Args:
            model: name of the base or an adapter.
            prompt: the prompt text.
            max_tokens: maximum number of generated tokens.
            regex: constraint on the generated text; None for unconstrained generation.
            headers: forwarded to the engine (request id, trace).
            deadline: once it has passed, the request is taken from the engine.
            priority: whose turn it is at the engine; lower numbers go first.

        Raises:
            GatewayError: EngineUnavailable, EngineTimeout, DeadlineExceeded or EngineFault.
        """
        ...

    def completions(
        self, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> AbstractAsyncContextManager[Upstream]:
        """Forward a ``/v1/completions`` request unchanged.

        Raises:
            GatewayError: on entry, an engine error or EngineRefused; while reading chunks,
                EngineUnavailable, EngineTimeout or DeadlineExceeded.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class VllmEngine:
    """Client for the vLLM API server that ``settings`` name. Create it inside a running event
    loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._url, self._connect_seconds = settings.engine, settings.connect_timeout_seconds
        key = settings.vllm_api_key.get_secret_value()
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {key}"} if key else {},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["accept", "accept-encoding", "user-agent"],
        )

    async def models(self) -> list[Model]:
        body = await self._fetch("GET", "/v1/models", Deadline.after(HEALTH_SECONDS))
        try:
            return msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFault(f"the engine's list of models cannot be read: {error}") from error

    async def healthy(self) -> bool:
        try:
            await self._fetch("GET", "/health", Deadline.after(HEALTH_SECONDS))
        except GatewayError:
            return False
        return True

    async def steps(self) -> float:
        text = await self._fetch("GET", "/metrics", Deadline.after(HEALTH_SECONDS))
        try:
            return sum(engine_steps(text.decode()).values())
        except ValueError as error:
            raise EngineFault(f"the engine's metrics cannot be read: {error}") from error

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
        deadline: Deadline,
        priority: int = TASK_PRIORITY,
    ) -> Completion:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "priority": priority,
        }
        if regex is not None:
            body["structured_outputs"] = {"regex": regex}
        data = msgspec.json.encode(body)
        try:
            written = await self._fetch("POST", "/v1/completions", deadline, data, headers)
            answer = msgspec.json.decode(written, type=_Completion)
        except EngineRefused as error:
            # The gateway built this request itself, so a refusal is a deployment error.
            raise EngineFault(f"the engine refused a task request: {error.message}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFault(f"the engine's answer is not a completion: {error}") from error
        choice = answer.choices[0]
        if choice.finish_reason == ABORTED:
            raise EngineUnavailable("the engine stops and has left the request")
        usage, drafts = answer.usage, answer.metrics and answer.metrics.speculative_decoding
        tokens = usage.completion_tokens
        passes = drafts.passes(tokens) if drafts else tokens
        return Completion(choice.text, usage.prompt_tokens, tokens, passes)

    @asynccontextmanager
    async def completions(
        self, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> AsyncIterator[Upstream]:
        async with self._ask("POST", "/v1/completions", deadline, body, headers) as response:
            yield Upstream(response.content_type, response.content.iter_any())

    async def close(self) -> None:
        await self._session.close()

    async def _fetch(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the full response body."""
        async with self._ask(method, path, deadline, data, headers) as response:
            return await response.read()

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        data: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; convert aiohttp's errors and the engine's into gateway errors."""
        sent = dict(headers or {})
        if data is not None:
            sent["content-type"] = "application/json"
        url, remaining = self._url + path, deadline.remaining()
        if remaining <= 0:  # aiohttp takes 0 for no timeout
            raise deadline.passed()
        timeout = aiohttp.ClientTimeout(
            total=remaining, sock_connect=self._connect_seconds, ceil_threshold=math.inf
        )
        try:
            async with self._session.request(
                method, url, data=data, headers=sent, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise failure(await response.read(), response.status)
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise EngineSilent("the engine does not answer; try again later") from error
        except TimeoutError as error:
            raise deadline.passed() from error
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
        return EngineRefused(
            status, error.message, (error.param or "").removeprefix("body.") or None
        )
    if status == 500 and error.code == 500 and not error.message.startswith(DEAD):
        return EngineFault(f"the engine failed on this request: {error.message}")
    return EngineUnavailable(f"the engine failed ({status} {error.message}); try again later")
