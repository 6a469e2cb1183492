"""An engine without a model, for the gateway's unit tests: it answers what it is told to."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.testclient import TestClient

from loadtests.bench.upstream import BASE_SEED, FREE_TEXT, golden, legal
from serving.gateway.app import EngineFactory
from serving.gateway.deadline import Deadline
from serving.gateway.engine import TASK_PRIORITY, Completion, Engine, Model, Upstream
from serving.gateway.errors import EngineUnavailable, GatewayError
from serving.gateway.settings import GatewaySettings
from serving.tasks.registry import TASKS
from tests.kit.waiting import wait_for

HERE = "http://127.0.0.1"
"""Address of the service for a test client."""
BASE = Model("demo", 1)
ADAPTERS = [Model(name, 1, "demo", golden(task)) for name, task in TASKS.items()]


@dataclass(frozen=True)
class Call:
    """What the engine was asked to complete."""

    model: str
    prompt: str
    regex: str | None
    headers: Mapping[str, str]
    priority: int


@dataclass
class FakeEngine:
    """Set a field to change what the next request meets."""

    text: str | None = None
    """What adapters answer instead of something legal."""
    base_text: str | None = None
    """What the base answers under a constraint instead of something legal."""
    free_text: str = FREE_TEXT
    served: list[Model] = field(default_factory=lambda: [BASE, *ADAPTERS])
    error: GatewayError | None = None
    """What every request meets."""
    losses: list[GatewayError] = field(default_factory=list)
    """What the next completions meet, one each."""
    chunks: list[bytes] = field(default_factory=lambda: [b'{"choices":', b"[]}"])
    content_type: str = "application/json"
    breaks_after: int | None = None
    gate: asyncio.Event | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    finished: int = 0
    checks: int = 0
    missed_checks: int = 0
    made: float = 0
    """Steps."""
    moves: bool = False
    """Whether it makes steps."""
    calls: list[Call] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def models(self) -> list[Model]:
        self._fail()
        return self.served

    async def healthy(self) -> bool:
        self.checks += 1
        if self.missed_checks:
            self.missed_checks -= 1
            return False
        return self.error is None

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
        self.calls.append(Call(model, prompt, regex, headers, priority))
        if self.gate:
            self.reached.set()
            try:
                async with asyncio.timeout(deadline.remaining()):
                    await self.gate.wait()
            except TimeoutError as error:
                raise deadline.passed() from error
            self.finished += 1
        self._fail()
        self._lose()
        if regex is None:
            text = self.free_text
        elif model == BASE.name:
            text = legal(regex, BASE_SEED) if self.base_text is None else self.base_text
        else:
            text = legal(regex) if self.text is None else self.text
        return Completion(text, 80, 23, 3)

    async def steps(self) -> float:
        self._fail()
        self.made += self.moves
        return self.made

    @asynccontextmanager
    async def completions(
        self, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> AsyncIterator[Upstream]:
        self.bodies.append(body)
        self._fail()
        self._lose()
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

    def _lose(self) -> None:
        if self.losses:
            raise self.losses.pop(0)


def factory(engine: FakeEngine) -> EngineFactory:
    """What ``create_app`` takes."""

    def make(_: GatewaySettings) -> Engine:
        return engine

    return make


def completion_body(**fields: object) -> bytes:
    return json.dumps({"model": "rate", "prompt": "x", **fields}).encode()


def wait_ready(client: TestClient, status: int = 200) -> None:
    wait_for(
        lambda: client.get("/readyz").status_code == status, 5, lambda: client.get("/readyz").text
    )
