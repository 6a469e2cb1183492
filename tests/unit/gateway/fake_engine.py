"""An engine without a model, for the gateway's unit tests: it answers what it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.testclient import TestClient

from serving.contract import rate
from serving.gateway.app import EngineFactory
from serving.gateway.engine import Completion, Engine, Model, Upstream
from serving.gateway.errors import EngineUnavailable, GatewayError
from serving.gateway.settings import GatewaySettings

CLASSIC = rate.OUTPUT.decided(
    {
        "init_weight_rate": 65,
        "increase_rate_week": 5,
        "increase_rate_set": 10,
        "deloading_rate": 40,
    }
)
BASE, ADAPTER = Model("demo", 1, False), Model("rate", 1, True)
OTHER = rate.OUTPUT.decided(next(rate.OUTPUT.enumerate()))


@dataclass
class FakeEngine:
    """Set a field to change what the next request meets."""

    text: str = CLASSIC
    base_text: str = OTHER
    free_text: str = "자유로운 시"
    served: list[Model] = field(default_factory=lambda: [BASE, ADAPTER])
    error: GatewayError | None = None
    chunks: list[bytes] = field(default_factory=lambda: [b'{"choices":', b"[]}"])
    content_type: str = "application/json"
    breaks_after: int | None = None
    gate: asyncio.Event | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    finished: int = 0
    calls: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def models(self) -> list[Model]:
        self._fail()
        return self.served

    async def healthy(self) -> bool:
        return self.error is None

    async def complete(
        self,
        model: str,
        prompt: str,
        max_tokens: int,
        regex: str | None,
        headers: Mapping[str, str],
    ) -> Completion:
        self.calls.append((prompt, headers))
        if self.gate:
            self.reached.set()
            await self.gate.wait()
            self.finished += 1
        self._fail()
        text = self.text if model == "rate" else self.base_text
        return Completion(self.free_text if regex is None else text, 80, 23)

    @asynccontextmanager
    async def completions(self, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Upstream]:
        self.bodies.append(body)
        self._fail()
        yield Upstream(self.content_type, self._stream())

    async def _stream(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self.chunks):
            if number == self.breaks_after:
                raise EngineUnavailable("the engine is down; try again later")
            yield chunk

    async def close(self) -> None:
        pass

    def _fail(self) -> None:
        if self.error:
            raise self.error


def factory(engine: FakeEngine) -> EngineFactory:
    """What ``create_app`` takes."""

    def make(_: GatewaySettings) -> Engine:
        return engine

    return make


def completion_body(**fields: object) -> bytes:
    return json.dumps({"model": "rate", "prompt": "x", **fields}).encode()


def wait_ready(client: TestClient, status: int = 200) -> None:
    deadline = time.monotonic() + 5
    while client.get("/readyz").status_code != status:
        assert time.monotonic() < deadline, client.get("/readyz").text
        time.sleep(0.01)
