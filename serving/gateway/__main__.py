"""Start the gateway: ``python -m serving.gateway``."""

from __future__ import annotations

import json
import logging
import sys

import uvicorn

from serving.contract.profile import PUBLISHED
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from serving.startup import StartError, check_port, load


def curl_line(port: int) -> str:
    """A command that asks for the first published profile's progression."""
    body = json.dumps(PUBLISHED[0].model_dump(), ensure_ascii=False)
    return (
        f"curl http://127.0.0.1:{port}/gen/routine/rate -H 'content-type: application/json' "
        f"-d '{body}'"
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load(GatewaySettings)
        check_port(settings.host, settings.port, "PORT")
    except StartError as error:
        sys.exit(f"gateway: {error}")

    def announce() -> None:
        url = f"http://127.0.0.1:{settings.port}"
        print(f"ready: {url} (API page: {url}/docs). Try:\n{curl_line(settings.port)}", flush=True)

    uvicorn.run(
        create_app(settings, announce=announce),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
