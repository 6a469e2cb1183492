"""Start the gateway: ``python -m serving.gateway``."""

import logging
import os
import resource
import sys

from serving.gateway import logs
from serving.gateway.app import create_app
from serving.gateway.process import settle
from serving.gateway.server import Drain, Server
from serving.gateway.settings import GatewaySettings
from serving.process import StartError, check_port, load
from serving.tracing import trace_target

OTHER_FILES = 64
"""Open files that are not connections."""


def main() -> None:
    try:
        settings = load(GatewaySettings)
        traces = trace_target(os.environ)
        check_port(settings.host, settings.port, "PORT")
        check_port(settings.host, settings.metrics_port, "GATEWAY_METRICS_PORT")
        settings = settings.model_copy(update={"max_connections": _possible(settings)})
        drain = Drain()
        app = create_app(settings, on_ready=settle, traces=traces, drain=drain)
        server = Server(app, drain, settings)
    except StartError as error:
        sys.exit(f"gateway: {error}")
    logs.set_up(settings.log_level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the gateway logs "ready" itself
    if settings.allow_anonymous and not settings.keys:
        logging.warning("ALLOW_ANONYMOUS: whoever reaches this port may ask, without a key")
    server.run()


def _possible(settings: GatewaySettings) -> int:
    """Return how many connections there are files for. Each may need one more, to the engine."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return settings.max_connections
    return max(1, min(settings.max_connections, most // 2 - OTHER_FILES))


if __name__ == "__main__":
    main()
