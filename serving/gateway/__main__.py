"""Start the gateway: ``python -m serving.gateway``."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from serving.gateway import logs
from serving.gateway.app import create_app
from serving.gateway.middleware import Envelope
from serving.gateway.process import settle
from serving.gateway.settings import GatewaySettings
from serving.instruments import FOLDER, new_folder, remove_folder
from serving.startup import StartError, check_port, die_with_parent, load, trace_target


def application() -> Envelope:
    """One worker's application, set up from the environment."""
    die_with_parent()
    settings = load(GatewaySettings)
    logs.set_up(settings.log_level)
    # Of the processes that serve: "ready" is said by us. Their supervisor tells whose worker died.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return create_app(settings, on_ready=settle, traces=trace_target(os.environ))


def main() -> None:
    try:
        settings = load(GatewaySettings)
        trace_target(os.environ)
        check_port(settings.host, settings.port, "PORT")
        # A folder that is already named is another's, and prometheus_client counts in one by now.
        if settings.workers > 1 or {FOLDER, FOLDER.lower()} & os.environ.keys():
            os.environ[FOLDER] = new_folder()
    except StartError as error:
        sys.exit(f"gateway: {error}")
    logs.set_up(settings.log_level)
    try:
        uvicorn.run(
            "serving.gateway.__main__:application",
            factory=True,
            workers=settings.workers,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            log_config=None,
        )
    finally:
        remove_folder()


if __name__ == "__main__":
    main()
