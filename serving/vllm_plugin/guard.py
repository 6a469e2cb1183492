"""What the engine's API server serves: what the gateway asks, and Prometheus.

vLLM has some forty routes more. Its key guards a few of them (vllm/entrypoints/serve/middleware/
authenticate.py); the others read, pause or reconfigure the engine.
"""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SERVED = {
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("POST", "/v1/completions"),
}


class Guard:
    """ASGI middleware (vLLM's option ``--middleware``); answers all else with 404."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and (scope.get("method"), scope["path"]) not in SERVED:
            error = {"message": "not served here", "type": "NotFoundError", "code": 404}
            await JSONResponse({"error": error}, 404)(scope, receive, send)
            return
        await self._app(scope, receive, send)
