"""The tools at /mcp, asked by the SDK's own client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent
from starlette.testclient import TestClient

from serving.gateway.errors import Overloaded
from serving.gateway.settings import GatewaySettings
from serving.gateway.tools import TOOLS
from serving.tasks.registry import CALCULATIONS, TASKS
from tests.kit.bad_requests import GOOD, ROUTES, good
from tests.unit.gateway.fake_engine import FakeEngine
from tests.unit.gateway.running import running


@asynccontextmanager
async def tools(settings: GatewaySettings) -> AsyncIterator[tuple[Client, FakeEngine]]:
    """A client of the gateway's tools, and the engine behind it."""
    async with running(settings) as (found, _):
        async with Client(f"{found.url}/mcp") as client:
            yield client, found.engine
        found.server.should_exit = True


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return str(content.text)


async def test_every_task_and_calculation_is_a_tool(
    settings: GatewaySettings, client: TestClient
) -> None:
    async with tools(settings) as (asking, _):
        listed = (await asking.list_tools()).tools
        assert [tool.name for tool in listed] == list(TOOLS) == [*TASKS, *CALCULATIONS]
        for tool in listed:
            assert tool.input_schema == ROUTES[tool.name].request.model_json_schema()
            result = await asking.call_tool(tool.name, good(tool.name))
            assert not result.is_error
            routed = client.post(f"/gen/routine/{tool.name}", json=good(tool.name))
            assert text_of(result) == routed.text
            assert result.structured_content == routed.json()


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("rate", {**GOOD, "experience": 9}, "experience cannot be 9; it must be an integer"),
        ("rate", {}, "experience is missing"),
        ("month", {**GOOD, "days_per_week": "4"}, 'days_per_week cannot be "4"'),
        ("next", GOOD, "rates is missing"),
        ("year", GOOD, "there is no tool 'year'; there are rate, month, next"),
    ],
)
async def test_a_wrong_call_is_told_to_the_model_that_made_it(
    settings: GatewaySettings, name: str, arguments: Any, words: str
) -> None:
    async with tools(settings) as (asking, _):
        result = await asking.call_tool(name, arguments)
    assert result.is_error
    assert text_of(result).startswith(words)


async def test_an_engine_s_error_is_told_too(settings: GatewaySettings) -> None:
    async with tools(settings) as (asking, engine):
        engine.error = Overloaded("9 requests are waiting; try again in 7 s", 7)
        result = await asking.call_tool("rate", GOOD)
    assert result.is_error
    assert "try again in 7 s" in text_of(result)


def test_what_is_no_call_is_refused_in_the_protocol_s_or_the_common_shape(
    client: TestClient,
) -> None:
    headers = {"accept": "application/json, text/event-stream"}
    broken = client.post(
        "/mcp", content="{", headers={**headers, "content-type": "application/json"}
    )
    assert broken.status_code == 400
    assert json.loads(broken.text)["error"]["code"] == -32700
    assert client.get("/mcp").status_code == 405
    assert client.post("/mcp", content="x").json()["error"]["code"] == "unsupported_media_type"
    huge = client.post("/mcp", json={"x": "y" * 5000}, headers=headers)
    assert huge.json()["error"]["code"] == "body_too_large"
