"""Run the engine on a single-machine Ray cluster: ``python -m deploy.ray.cluster``.

This module does what KubeRay does for a multi-machine cluster. Serve's proxy listens on loopback
only; Ray's own servers also listen on other interfaces and require a token.
"""

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
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
    """Read from upper-case environment variables, like the engine's settings."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    engine_port: int = Field(default=8001, ge=1, le=65535)
    """Port that Serve's proxy listens on."""
    serve_config: Path = HERE / "cpu.yaml"
    """Serve configuration file: the number of replicas and the resources of each."""


def configuration(settings: ClusterSettings) -> dict[str, Any]:
    """Load the Serve configuration and adapt it to this machine.

    Raises:
        StartError: the file is missing or invalid.
    """
    try:
        found = yaml.safe_load(settings.serve_config.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "applications" not in found:
            raise ValueError("it has no applications; see deploy/ray/cpu.yaml for an example")
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
        check_model(load(EngineSettings))  # Serve would try three times first
    except (StartError, PreflightError, LockError) as error:
        sys.exit(f"cluster: {error}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(address="local", include_dashboard=False)
    signal.signal(signal.SIGTERM, _stop)  # in place of the handler that Ray has just set
    run(config)


def _stop(*_: object) -> None:
    """Kill Ray's processes and exit. Ray's own handler aborts, its orderly shutdown waits for
    processes that received the signal too, and some outlive this process if left to themselves."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(128 + signal.SIGTERM)


def run(config: dict[str, Any]) -> None:
    """Deploy a Serve configuration and run until terminated; exit if the deployment fails."""
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
            if application.status == ApplicationStatus.DEPLOY_FAILED:  # Serve keeps running
                said = application.message.strip().splitlines() or ["no reason given"]
                sys.exit(f"cluster: {name} cannot be deployed: {said[-1]}")


if __name__ == "__main__":
    main()
