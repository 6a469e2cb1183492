"""Stops in order, so that no request is lost.

1. ``/readyz`` turns to 503, and answers close their connections: load balancers and clients go
   elsewhere. What was sent before is still admitted.
2. New requests get 503; those that were admitted are finished, within ``drain_seconds``.
3. The server closes. A second signal skips to here.
"""

import asyncio
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serving.gateway.protocol import Protocol
from serving.gateway.settings import GatewaySettings

LINGER_SECONDS = 0.5
"""Duration of step 1, and the least of step 2."""
POLL_SECONDS = 0.05


class Drain:
    """How far a stop has come; ``Server`` sets it."""

    is_leaving = False
    """Whether clients should go elsewhere."""
    refuses = False
    """Whether new requests are refused."""


class Server(uvicorn.Server):
    """uvicorn, with a stop in order.

    Args:
        app: the application.
        drain: read by the application.
        settings: gateway settings.
    """

    def __init__(self, app: ASGIApp, drain: Drain, settings: GatewaySettings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=Protocol,
            ws="none",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            log_config=None,
            timeout_graceful_shutdown=1,  # what was to be waited for has been
        )
        super().__init__(config)
        self._drain, self._drain_seconds = drain, settings.drain_seconds
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM."""
        if self._stopping is None and self.started:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        else:
            self.should_exit = self.force_exit = True

    async def _stop(self) -> None:
        self._drain.is_leaving = True
        await asyncio.sleep(LINGER_SECONDS)
        self._drain.refuses = True
        await asyncio.sleep(LINGER_SECONDS)
        waited = 2 * LINGER_SECONDS
        while self.server_state.tasks and waited < self._drain_seconds:
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        self.should_exit = True
