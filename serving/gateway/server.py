"""Stops in order, so that no request is lost.

1. ``/readyz`` turns to 503, and answers close their connections: load balancers and clients go
   elsewhere. What was sent before is still admitted.
2. New requests get 503; those that were admitted are finished, within ``drain_seconds``.
3. The server closes. A second signal skips to here.

It listens to one port, or to another for ``/metrics`` beside it (``access`` tells which has what),
and speaks TLS if there is a certificate.
"""

import asyncio
import logging
import socket
import ssl
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serving.gateway.protocol import Protocol
from serving.gateway.settings import GatewaySettings
from serving.process import StartError, file_version

LINGER_SECONDS = 0.5
"""Duration of step 1, and the least of step 2."""
POLL_SECONDS = 0.05
SECURITY_HEADERS = [("x-content-type-options", "nosniff")]
"""Of every answer; browsers heed them. The page has more."""
CERTIFICATE_TICKS = 50
"""Interval of looks at the certificate, in ticks of uvicorn's (0.1 s)."""

log = logging.getLogger(__name__)


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

    Raises:
        StartError: the certificate cannot be used.
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
            server_header=False,
            headers=SECURITY_HEADERS,
            timeout_keep_alive=settings.keep_alive_seconds,
            log_config=None,
            timeout_graceful_shutdown=1,  # what was to be waited for has been
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        super().__init__(config)
        self._settings = settings
        self._certificate = self._certificate_version()
        self._load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._drain, self._drain_seconds = drain, settings.drain_seconds
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM."""
        if self._stopping is None and self.started:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        else:
            self.should_exit = self.force_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        settings = self._settings
        if settings.metrics_port and not sockets:
            ports = (settings.port, settings.metrics_port)
            sockets = [_bound(settings.host, port) for port in ports]
        await super().serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Read a certificate that has changed."""
        if self.config.ssl and counter % CERTIFICATE_TICKS == 0:
            version = self._certificate_version()
            if version != self._certificate:
                self._certificate = version
                try:
                    self._load_certificate(self.config.ssl)
                    log.info("the certificate has been read again")
                except StartError as error:
                    log.error("the certificate of before stays in force: %s", error)
        return await super().on_tick(counter)

    def _certificate_version(self) -> object:
        files = (self._settings.tls_certificate, self._settings.tls_key)
        return [file_version(file) for file in files if file]

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        """Load the certificate, if there is one."""
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if not certificate:
            return
        try:
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            said = error.strerror or error if isinstance(error, OSError) else error
            raise StartError(f"GATEWAY_TLS_CERTIFICATE={certificate}: {said}") from error

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


def _bound(host: str, port: int) -> socket.socket:
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
    )
