"""``/mcp``: each task and calculation as a tool of a Model Context Protocol server, over streamable
HTTP without sessions. The SDK speaks the protocol; limits and checks are those of the routes.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.types import Message, Receive, Scope, Send

from serving.gateway.errors import GatewayError, InvalidRequest
from serving.gateway.exchange import exchange_of
from serving.gateway.generate import Generator
from serving.gateway.validation import validated
from serving.tasks.base import Calculation, Task
from serving.tasks.registry import CALCULATIONS, TASKS

PATH = "/mcp"
INSTRUCTIONS = (
    "5/3/1 training plans from a lifter's profile. Ask for 1RMs in kg; do not change what a tool "
    "answers: its weights and repetitions are checked."
)
TOOLS: Mapping[str, Task[Any] | Calculation[Any]] = {**TASKS, **CALCULATIONS}


class Tools:
    """The server of the tools.

    Args:
        generator: answers tasks.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        server = Server(
            "routine-serving",
            version=version("routine-serving"),
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
        self._listed = ListToolsResult(tools=[_tool(served) for served in TOOLS.values()])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve as long as the context lasts."""
        async with self._manager.run():
            yield

    def add_to(self, router: APIRouter) -> None:
        """Add the route to ``router``."""

        @router.post(PATH, include_in_schema=False)
        async def mcp(request: Request) -> Response:
            return _Relayed(self._manager, await exchange_of(request).body())

    async def _list(
        self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return self._listed

    async def _call(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        try:
            text = await self._answer(params, context.request)
        except GatewayError as error:  # the model that asked reads it, and may ask again
            return CallToolResult(content=[TextContent(text=error.message)], is_error=True)
        return CallToolResult(content=[TextContent(text=text)], structured_content=json.loads(text))

    async def _answer(self, params: CallToolRequestParams, request: Request) -> str:
        served, exchange = TOOLS.get(params.name), exchange_of(request)
        if served is None:
            raise InvalidRequest(
                f"there is no tool {params.name!r:.80}; there are {', '.join(TOOLS)}"
            )
        asked = validated(served.request, json.dumps(params.arguments or {}).encode())
        if isinstance(served, Calculation):
            exchange.caller.require("tasks", served.name)
            return served.compute(asked).model_dump_json()
        deadline = self._generator.deadline(exchange.head)
        headers, caller = exchange.headers, exchange.caller
        return (await self._generator.answer(served, asked, headers, deadline, caller)).text


def _tool(served: Task[Any] | Calculation[Any]) -> Tool:
    return Tool(
        name=served.name,
        description=served.summary,
        input_schema=served.request.model_json_schema(),
        output_schema=served.response.model_json_schema(),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


class _Relayed(Response):
    """The SDK's response to a body that has been read."""

    def __init__(self, manager: StreamableHTTPSessionManager, body: bytes) -> None:
        super().__init__()
        self._manager, self._asked = manager, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": self._asked, "more_body": False}

        await self._manager.handle_request(scope, replay, send)
