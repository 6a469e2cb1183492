"""Application factory: builds the FastAPI application from settings."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.gateway.access import Access
from serving.gateway.admission import Admission
from serving.gateway.batch import Batches
from serving.gateway.deadline import TIMEOUT
from serving.gateway.engine import BATCH_PRIORITY, TASK_PRIORITY, Engine, VllmEngine
from serving.gateway.generate import Generator
from serving.gateway.head import Head
from serving.gateway.metrics import BATCH_POOL, COMPLETION_POOL, TASK_POOL, Metrics
from serving.gateway.middleware import RequestMiddleware
from serving.gateway.process import watch_process
from serving.gateway.protocol import Gate, Room, State
from serving.gateway.readiness import Readiness
from serving.gateway.relay import Relay
from serving.gateway.routes import PASSES, PATH, SCHEMAS, TOKENS, routes
from serving.gateway.server import Drain
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import Telemetry
from serving.gateway.tools import Tools
from serving.limit import AdaptiveLimit, Limit
from serving.tasks.base import Task
from serving.tasks.registry import TASKS
from serving.tracing import TraceTarget

TITLE = "routine-serving: 5/3/1 루틴 생성"
DESCRIPTION = """리프터의 프로필을 보내면 5/3/1 훈련 계획을 돌려줍니다.

모델이 정하는 것은 진행표의 네 가지 비율(`rate`)과 보조 운동(`month`)뿐이고, 나머지는 스키마와
계산이 정합니다. 그래서 답은 스스로 모순될 수 없습니다. 오류는 모두 OpenAI의 오류 형식입니다."""

EngineFactory = Callable[[GatewaySettings], Engine]


def create_app(
    settings: GatewaySettings,
    engine_factory: EngineFactory = VllmEngine,
    on_ready: Callable[[], None] = lambda: None,
    traces: TraceTarget | None = None,
    drain: Drain | None = None,
) -> FastAPI:
    """Create the application.

    Args:
        settings: gateway settings.
        engine_factory: creates the engine client; called inside the running event loop.
        on_ready: called each time the service becomes ready.
        traces: trace export target; None disables tracing.
        drain: set by the server when it stops.
    """
    metrics, drain = Metrics(), drain or Drain()
    access = Access(settings, metrics)
    telemetry = Telemetry(metrics, traces)
    for task in TASKS.values():
        for output in task.outputs():
            output.decided_regex  # noqa: B018 (build it now: importing Outlines takes a second)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        engine = engine_factory(settings)
        readiness = Readiness(engine, settings, drain, metrics, on_ready)
        tasks, completions, batch = _shares(settings, telemetry)
        generator, batch_generator = (
            Generator(engine, share, readiness, telemetry, settings.task_timeout_seconds, priority)
            for share, priority in ((tasks, TASK_PRIORITY), (batch, BATCH_PRIORITY))
        )
        batches = Batches(batch_generator, readiness, settings.max_in_flight)
        relay = Relay(settings, engine, completions, readiness, telemetry)
        router = routes(engine, generator, batches, relay, readiness, metrics, settings.pages)
        tools = Tools(generator)
        tools.add_to(router)
        app.router.routes[:0] = router.routes  # ahead of the docs pages: first match wins
        watching = (readiness.watch(), watch_process(metrics), access.watch())
        watches = [asyncio.create_task(watch) for watch in watching]
        async with tools.running():
            gates, room = _gates(generator, access), Room(settings)
            yield {"gates": gates, "metrics": metrics, "room": room}
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await engine.close()
        await telemetry.close()

    make = FastAPIOffline if settings.pages else partial(FastAPI, openapi_url=None)
    app = make(
        title=TITLE, description=DESCRIPTION, version="1", lifespan=lifespan, redirect_slashes=False
    )
    # Of FastAPI's own layers only the one that its API page needs: RequestMiddleware does what the
    # others do, which take 4 % of a request.
    inner = AsyncExitStackMiddleware(app.router)
    asked = RequestMiddleware(inner, telemetry, settings, drain, access)
    app.middleware_stack = _with_cors(asked, settings)
    _describe(app)
    return app


def _gates(generator: Generator, access: Access) -> dict[bytes, Gate]:
    """Return what refuses a task's request before its body is read, by path."""

    def gate(task: Task[Any]) -> Gate:
        def refuse(head: Head) -> None:
            generator.refuse(task, head, access.caller(head))

        return Gate(lambda: generator.is_free, refuse)

    return {PATH.format(task=task.name).encode(): gate(task) for task in TASKS.values()}


def _shares(
    settings: GatewaySettings, telemetry: Telemetry
) -> tuple[Admission, Admission, Admission]:
    """Return the shares of the engine: of tasks, of what is passed through, and of batches."""
    longest_wait, most = settings.max_queue_seconds, settings.max_in_flight
    completing = Limit(settings.max_completions_in_flight)
    tasks = Admission(TASK_POOL, AdaptiveLimit(most), longest_wait, telemetry)
    completions = Admission(COMPLETION_POOL, completing, longest_wait, telemetry)
    batch = Admission(BATCH_POOL, AdaptiveLimit(most), math.inf, telemetry)
    return tasks, completions, batch


def _with_cors(app: ASGIApp, settings: GatewaySettings) -> ASGIApp:
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins.split(","),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-request-id", TIMEOUT],
        expose_headers=["retry-after", "x-request-id", TOKENS, PASSES],
    )


def _describe(app: FastAPI) -> None:
    """Add the request schemas and the common error schema to OpenAPI."""

    def openapi() -> dict[str, Any]:
        schema = FastAPI.openapi(app)  # built once
        schema["components"]["schemas"] |= SCHEMAS
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{}, {"key": []}]  # where keys are in force
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
