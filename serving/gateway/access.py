"""Who may ask what, and how much: API keys, their limits, and which port has which path.

Without a file of keys anybody may ask, as long as the gateway listens to this machine alone or
``ALLOW_ANONYMOUS`` says that others may come too.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from serving.gateway.errors import Forbidden, LimitReached, RouteError, Unauthorized
from serving.gateway.head import Head
from serving.gateway.metrics import Metrics
from serving.gateway.settings import GatewaySettings
from serving.keys import Key, KeysError, digest, read
from serving.process import file_version

HEALTH = ("/healthz", "/readyz")
METRICS = "/metrics"
OPEN = ("/", "/docs", "/redoc", "/openapi.json", *HEALTH)
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
"""What needs no key: how the service is, the pages, and what they are made of."""
POLL_SECONDS = 1.0
"""Interval of looks at the file of keys."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
"""Name or address, and a port."""

_NOT_COUNTED = nullcontext()

log = logging.getLogger(__name__)


class _Window:
    """A limit of what a key may take in a window of time.

    Args:
        what: as OpenAI's headers call it.
        limit: how much in which time.
        name: of the key.
        limiter: remembers what has been taken.
    """

    def __init__(
        self, what: str, limit: RateLimitItem, name: str, limiter: FixedWindowRateLimiter
    ) -> None:
        self._what, self._limit, self._name, self._limiter = what, limit, name, limiter

    async def take(self, amount: int = 1) -> bool:
        """Take an amount, whether or not it is left; return whether it was."""
        return await self._limiter.hit(self._limit, self._name, cost=amount)

    async def left(self) -> tuple[int, float]:
        """Return what is left, and the seconds until all is there again."""
        stats = await self._limiter.get_window_stats(self._limit, self._name)
        return stats.remaining, max(0.0, stats.reset_time - time.time())

    async def headers(self) -> dict[str, str]:
        """Return OpenAI's headers that tell of it."""
        remaining, seconds = await self.left()
        return {
            f"x-ratelimit-limit-{self._what}": str(self._limit.amount),
            f"x-ratelimit-remaining-{self._what}": str(remaining),
            f"x-ratelimit-reset-{self._what}": f"{seconds:.3f}s",
        }

    async def reached(self) -> LimitReached:
        """Return the error of who wants more than is left."""
        unit = "second" if isinstance(self._limit, RateLimitItemPerSecond) else "minute"
        words = f"the key {self._name!r} may take {self._limit.amount} {self._what} a {unit}"
        return LimitReached(words, (await self.left())[1])


class Caller:
    """Who asks: anybody, who may everything."""

    name = ""
    """Of the key; empty without."""

    def require(self, what: Literal["tasks", "models"], name: str) -> None:
        """Raise unless the caller may use a task or a model.

        Raises:
            Forbidden: the key is not for it.
        """

    def asking(self, told: dict[str, str]) -> AbstractAsyncContextManager[None]:
        """Count a request as long as the context lasts.

        Args:
            told: gets headers that tell what is left.

        Raises:
            LimitReached: there are too many.
        """
        return _NOT_COUNTED

    async def require_tokens(self, waits: bool = False) -> None:
        """Return once the caller may take tokens.

        Args:
            waits: whether to wait for them.

        Raises:
            LimitReached: none is left, and the caller does not wait.
        """

    async def spend(self, tokens: int) -> None:
        """Take note of tokens that the caller took."""


class KeyHolder(Caller):
    """Who asks with a key.

    Args:
        key: the key.
        limiter: remembers what has been taken.
        metrics: where it counts.
    """

    def __init__(self, key: Key, limiter: FixedWindowRateLimiter, metrics: Metrics) -> None:
        self.key, self.name, self._running = key, key.name, 0
        self._spent = metrics.key_tokens.labels(key.name)
        self._requests = self._tokens = None
        if most := key.requests_per_second:
            self._requests = _Window("requests", RateLimitItemPerSecond(most), key.name, limiter)
        if most := key.tokens_per_minute:
            self._tokens = _Window("tokens", RateLimitItemPerMinute(most), key.name, limiter)
        self._windows = [window for window in (self._requests, self._tokens) if window]

    def require(self, what: Literal["tasks", "models"], name: str) -> None:
        allowed: list[str] | None = getattr(self.key, what)
        if allowed is not None and name not in allowed:
            raise Forbidden(
                f"the key {self.name!r} is for {what} {', '.join(allowed) or 'none'}, not for "
                f"{name[:80]!r}"
            )

    @asynccontextmanager
    async def asking(self, told: dict[str, str]) -> AsyncIterator[None]:
        most = self.key.requests_at_once
        if most is not None and self._running >= most:
            raise LimitReached(f"the key {self.name!r} may have {most} requests at once", 1.0)
        is_free = not self._requests or await self._requests.take()
        for window in self._windows:
            told |= await window.headers()
        if self._requests and not is_free:
            raise await self._requests.reached()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def require_tokens(self, waits: bool = False) -> None:
        while self._tokens:
            remaining, seconds = await self._tokens.left()
            if remaining:
                return
            if not waits:
                raise await self._tokens.reached()
            await asyncio.sleep(seconds)

    async def spend(self, tokens: int) -> None:
        self._spent.inc(tokens)
        if self._tokens and tokens:
            await self._tokens.take(tokens)


ANYBODY = Caller()


class Access:
    """Knows all callers.

    Args:
        settings: gateway settings.
        metrics: where keys count.

    Raises:
        KeysError: the file of keys cannot be read.
    """

    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._file, self._metrics_port = settings.keys, settings.metrics_port
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._hosts = () if settings.keys or settings.allow_anonymous else _own_names(settings)
        self._by_digest: dict[str, KeyHolder] = {}
        self._version: object = None
        if self._file:
            self._version = file_version(self._file)
            self._take(self._file)

    def caller(self, head: Head) -> Caller:
        """Return who asks.

        Raises:
            Unauthorized: without one of the keys.
            Forbidden: this address was not meant.
        """
        if not self._file:
            if self._hosts:
                self._require_own_name(head)
            return ANYBODY
        scheme, _, secret = head.get(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not secret:
            raise Unauthorized("send an API key, as in authorization: Bearer routine-...")
        found = self._by_digest.get(digest(secret.strip()))
        if not found:
            raise Unauthorized("there is no such API key")
        if found.key.has_expired:
            raise Unauthorized(f"the API key {found.name!r} expired at {found.key.expires}")
        return found

    def at_door(self, scope: Mapping[str, Any], head: Head) -> Caller:
        """Return who asks for a path, which may need no key.

        Raises:
            Unauthorized, Forbidden: as ``caller``.
            RouteError: this port does not have the path.
        """
        path = scope["path"]
        if path in HEALTH:
            return ANYBODY
        if self._metrics_port and scope["server"][1] == self._metrics_port:
            if path != METRICS:
                raise RouteError(404, f"this port has {METRICS} and {', '.join(HEALTH)}", None)
            return ANYBODY
        if path == METRICS and (self._metrics_port or self._file):
            raise RouteError(404, "metrics have a port of their own: GATEWAY_METRICS_PORT", None)
        if path in OPEN or path.startswith(OPEN_FOLDERS):
            return ANYBODY
        return self.caller(head)

    async def watch(self) -> None:
        """Read the file of keys again whenever it has changed, until cancelled. As long as it is
        wrong, the keys of before are in force."""
        while self._file:
            await asyncio.sleep(POLL_SECONDS)
            version = file_version(self._file)
            if version == self._version:
                continue
            self._version = version
            try:
                self._take(self._file)
                log.info("keys: %d", len(self._by_digest))
            except KeysError as error:
                log.error("the keys of before stay in force: %s", error)

    def _take(self, file: Path) -> None:
        """Read the keys; a caller whose key is unchanged keeps its state."""
        callers = {}
        for key in read(file).keys:
            known = self._by_digest.get(key.sha256)
            if not known or known.key != key:
                known = KeyHolder(key, self._limiter, self._metrics)
            callers[key.sha256] = known
        self._by_digest = callers

    def _require_own_name(self, head: Head) -> None:
        """Refuse what a browser was led here to ask: a page of another site may have its name lead
        to this machine (DNS rebinding), and read every answer."""
        host = head.get(b"host").decode("latin-1").lower()
        found = _HOST.fullmatch(host)
        if host and not (found and found[1].strip("[]") in self._hosts):
            raise Forbidden(
                f"host is {host[:80]!r}; without API keys it must be one of "
                f"{', '.join(self._hosts)}: set GATEWAY_KEYS, or ALLOW_ANONYMOUS=yes"
            )


def _own_names(settings: GatewaySettings) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", settings.host)))
