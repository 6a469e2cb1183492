"""Start the gateway: ``python -m serving.gateway``."""

import logging
import os
import sys

from serving.gateway import logs
from serving.gateway.app import create_app
from serving.gateway.process import settle
from serving.gateway.server import Drain, Server
from serving.gateway.settings import GatewaySettings
from serving.process import StartError, check_port, load
from serving.tracing import trace_target


def main() -> None:
    try:
        settings = load(GatewaySettings)
        traces = trace_target(os.environ)
        check_port(settings.host, settings.port, "PORT")
    except StartError as error:
        sys.exit(f"gateway: {error}")
    logs.set_up(settings.log_level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the gateway logs "ready" itself
    drain = Drain()
    app = create_app(settings, on_ready=settle, traces=traces, drain=drain)
    Server(app, drain, settings).run()


if __name__ == "__main__":
    main()
