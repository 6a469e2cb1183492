"""The engine's API server serves what the gateway asks, and nothing beside."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.vllm_plugin.guard import SERVED, Guard


async def here(request: Request) -> Response:
    return PlainTextResponse("here")


METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
ENGINE = Starlette(routes=[Route("/{path:path}", here, methods=METHODS)])
PATHS = ["/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions", "/version"]
PATHS += ["/tokenize", "/invocations", "/pause", "/reset_prefix_cache", "/v1/load_lora_adapter"]
PATHS += ["/v1/models/", "/V1/models", "/v1//models", "/v1/%6dodels/x", "/", "/health/../pause"]


@pytest.mark.parametrize("path", PATHS)
def test_only_what_is_listed_is_served(path: str) -> None:
    client = TestClient(Guard(ENGINE))
    for method in METHODS:
        status = client.request(method, path).status_code
        assert status == (200 if (method, path) in SERVED else 404), (method, path)
