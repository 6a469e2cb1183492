"""The engine client against a real HTTP server that misbehaves in every way an engine can."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from loadtests.service import free_port
from serving.gateway.deadline import Deadline
from serving.gateway.engine import DEAD, Completion, Model, VllmEngine
from serving.gateway.errors import (
    DeadlineExceeded,
    EngineFault,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from serving.gateway.settings import GatewaySettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD = {
    "choices": [{"text": "45"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


@asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[VllmEngine]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    settings = GatewaySettings(engine_port=free_port(), connect_timeout_seconds=0.5)
    await web.TCPSite(runner, "127.0.0.1", settings.engine_port).start()
    client = VllmEngine(settings)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def answering(status: int = 200, **kwargs: object) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        if "json" in kwargs:
            return web.json_response(kwargs["json"], status=status)
        return web.Response(status=status, text=str(kwargs.get("text", "")))

    return handle


async def complete(client: VllmEngine, seconds: float = 5, is_callers: bool = False) -> Completion:
    deadline = Deadline(Deadline.after(seconds).at, is_callers)
    return await client.complete("rate", "x", 5, "4.", {"x-request-id": "abc"}, deadline)


@pytest.mark.parametrize(("accepted", "steps", "passes"), [(17, 3, 3), (18, 3, 3), (10, 3, 10)])
async def test_a_pass_yields_a_token_beyond_the_drafts_it_accepts(
    accepted: int, steps: int, passes: int
) -> None:
    """The last does not if the end was drafted; some have no draft."""
    drafts = {"num_accepted_draft_tokens": accepted, "num_spec_steps": steps}
    told = {
        "choices": [{"text": "45"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 20},
        "metrics": {"speculative_decoding": drafts},
    }
    async with engine(answering(json=told)) as client:
        assert (await complete(client)).passes == passes


async def test_an_answer_that_the_engine_has_left_is_no_answer() -> None:
    """vLLM stops: it answers 200 to what comes then, with nothing in it. Another engine may not."""
    left = {**GOOD, "choices": [{"text": "", "finish_reason": "abort"}]}
    async with engine(answering(json=left)) as client:
        with pytest.raises(EngineUnavailable):
            await complete(client)


async def test_a_completion_is_asked_for_greedily_under_the_constraint() -> None:
    seen: dict[str, object] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json(), id=request.headers["x-request-id"])
        return web.json_response(GOOD)

    async with engine(handle) as client:
        assert await complete(client) == Completion("45", 3, 2, 2)
    assert seen == {
        "model": "rate",
        "prompt": "x",
        "max_tokens": 5,
        "temperature": 0,
        "priority": -1,
        "structured_outputs": {"regex": "4."},
        "id": "abc",
    }


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (answering(503, text="loading"), EngineUnavailable),
        (answering(500, text="<html>"), EngineUnavailable),
        (answering(500, json={"error": {"message": "this request", "code": 500}}), EngineFault),
        (answering(500, json={"error": {"message": f"{DEAD}.", "code": 500}}), EngineUnavailable),
        (answering(500, json={"error": {"message": "a proxy's"}}), EngineUnavailable),
        (answering(503, json={"error": {"message": "full", "code": 503}}), EngineUnavailable),
        (answering(400, json={"error": {"message": "no"}}), EngineFault),
        (answering(404, json={"error": {"message": "no adapter"}}), EngineFault),
        (answering(200, json={"choices": []}), EngineFault),
        (answering(200, json=[]), EngineFault),
        (answering(200, text="not json"), EngineFault),
    ],
)
async def test_what_an_engine_should_not_answer_is_a_typed_error(
    handler: Handler, error: type[GatewayError]
) -> None:
    async with engine(handler) as client:
        with pytest.raises(error):
            await complete(client)


async def test_a_pass_through_refusal_keeps_the_engine_s_words() -> None:
    refusal = {"error": {"message": "max_tokens must be positive", "param": "max_tokens"}}
    async with engine(answering(400, json=refusal)) as client:
        with pytest.raises(EngineRefused, match="must be positive") as caught:
            async with client.completions(b"{}", {}, Deadline.after(5)):
                pass
    assert (caught.value.status, caught.value.param) == (400, "max_tokens")


@pytest.mark.parametrize("body", [{"status": "starting"}, [], {"data": [{"id": "x"}]}])
async def test_a_list_of_models_that_is_none_is_a_typed_error(body: object) -> None:
    async with engine(answering(200, json=body)) as client:
        with pytest.raises(EngineFault, match="list of models"):
            await client.models()


async def test_the_list_of_models_tells_base_from_adapter() -> None:
    cards = [
        {"id": "demo", "created": 5, "parent": None, "root": "/secret"},
        {"id": "rate", "created": 6, "parent": "demo", "root": "/secret"},
    ]
    async with engine(answering(200, json={"data": cards})) as client:
        assert await client.models() == [Model("demo", 5), Model("rate", 6, "demo")]


async def test_a_silent_engine_is_a_timeout() -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.Response()

    async with engine(silent) as client:
        with pytest.raises(EngineTimeout):
            await complete(client, 0.1)
        with pytest.raises(EngineTimeout):
            await complete(client, -1)
        with pytest.raises(DeadlineExceeded):
            await complete(client, 0.1, is_callers=True)


async def test_a_silent_engine_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.Response()

    monkeypatch.setattr("serving.gateway.engine.HEALTH_SECONDS", 0.1)
    async with engine(silent) as client:
        assert not await client.healthy()


async def test_steps_are_those_of_all_cores() -> None:
    text = "\n".join(
        [
            "# HELP vllm:iteration_tokens_total Histogram of tokens",
            'vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 7.0',
            'vllm:iteration_tokens_total_count{engine="0",model_name="demo"} 12.0',
            'vllm:iteration_tokens_total_count{engine="1",model_name="demo"} 30.0',
        ]
    )
    async with engine(answering(text=text)) as client:
        assert await client.steps() == 42
    async with engine(answering(text="vllm:iteration_tokens_total_count x")) as client:
        with pytest.raises(EngineFault, match="metrics"):
            await client.steps()


async def test_an_engine_that_is_not_there_is_unavailable_at_once() -> None:
    settings = GatewaySettings(engine_port=free_port(), connect_timeout_seconds=30)
    client = VllmEngine(settings)
    start = time.perf_counter()
    with pytest.raises(EngineUnavailable):
        await complete(client)
    assert time.perf_counter() - start < settings.connect_timeout_seconds / 2
    assert not await client.healthy()
    await client.close()


async def test_an_engine_that_dies_within_a_stream_is_unavailable() -> None:
    async def dies(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        assert request.transport
        request.transport.abort()
        return response

    async with engine(dies) as client:
        chunks = []
        with pytest.raises(EngineUnavailable):
            async with client.completions(b"{}", {}, Deadline.after(5)) as upstream:
                assert upstream.content_type == "text/event-stream"
                async for chunk in upstream.chunks:
                    chunks.append(chunk)
        assert b"".join(chunks) in (b"", b"data: 1\n\n")
