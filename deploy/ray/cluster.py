"""A Ray cluster of this machine alone, with the engine on it: ``python -m deploy.ray.cluster``.

What a cluster of several machines is given by KubeRay, this gives itself. Serve's proxy listens on
the loopback interface; Ray's own servers listen on others too, and ask for a token.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.ray.versions import check_versions
from serving.engine.preflight import PreflightError, check_model
from serving.engine.settings import EngineSettings
from serving.lock import LockError
from serving.process import StartError, check_port, load

HERE = Path(__file__).parent


class ClusterSettings(BaseSettings):
    """Environment variables in capitals, as the engine's."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    engine_port: int = Field(default=8001, ge=1, le=65535)
    """Port of Serve's proxy."""
    serve_config: Path = HERE / "cpu.yaml"
    """A Serve configuration: how many replicas, and what each is given."""


def configuration(settings: ClusterSettings) -> dict[str, Any]:
    """The Serve configuration, for this machine alone.

    Raises:
        StartError: there is none.
    """
    try:
        found = yaml.safe_load(settings.serve_config.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "applications" not in found:
            raise ValueError("there are no applications in it; deploy/ray/cpu.yaml shows how")
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise StartError(f"SERVE_CONFIG={settings.serve_config}: {said}") from error
    return {**found, "http_options": {"host": "127.0.0.1", "port": settings.engine_port}}


def main() -> None:
    try:
        settings = load(ClusterSettings)
        check_versions()
        check_port("127.0.0.1", settings.engine_port, "ENGINE_PORT")
        config = configuration(settings)
        check_model(load(EngineSettings))  # Serve would try for ever
    except (StartError, PreflightError, LockError) as error:
        sys.exit(f"cluster: {error}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(address="local", include_dashboard=False)
    # Ray's own handler, set by now, ends in an abort, and its orderly shutdown waits for processes
    # that have had the signal too. They end with this one.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    run(config)


def run(config: dict[str, Any]) -> None:
    """Deploy a Serve configuration, until the process is told to end, or that fails."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus
    from ray.serve.scripts import cli

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        cli(["run", "--non-blocking", file.name], standalone_mode=False)
    while True:
        time.sleep(1)
        for name, application in serve.status().applications.items():
            if application.status == ApplicationStatus.DEPLOY_FAILED:  # and Serve goes on without
                said = application.message.strip().splitlines() or ["no reason given"]
                sys.exit(f"cluster: {name} cannot be deployed: {said[-1]}")


if __name__ == "__main__":
    main()
