"""Runs Prometheus with this project's configuration: ``make monitor``, the tests, the preview.

Prometheus is the machine's own, or the one of the Debian package that ``make prometheus`` unpacks
into the virtual environment.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from loadtests.programs import UNPACKED, program
from loadtests.service import served
from serving.process import StartError, check_port, load

HERE = Path(__file__).parent
HINT = "Prometheus is not installed: `make prometheus`, or install Debian's package prometheus"


class MonitorSettings(BaseSettings):
    """What ``make monitor`` watches, and where."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    port: int = Field(default=8000, ge=1, le=65535)
    """The gateway's port."""
    engine_port: int = Field(default=8001, ge=1, le=65535)
    """The engine's port."""
    prometheus_port: int = Field(default=9090, ge=1, le=65535)
    """Port to listen on."""


def tool(name: str) -> Path:
    """``prometheus`` or ``promtool``.

    Raises:
        StartError: it is not on this machine.
    """
    found = program(name)
    if found is None:
        raise StartError(HINT)
    return found


def configuration(folder: Path, targets: dict[str, str], interval_seconds: int) -> Path:
    """Write prometheus.yml for other addresses than a cluster's.

    Args:
        folder: where it is written.
        targets: by job, host and port; jobs that are not among them are left out.
        interval_seconds: between scrapes, and between evaluations of the rules.
    """
    config = yaml.safe_load((HERE / "prometheus.yml").read_text())
    every = f"{interval_seconds}s"
    config["global"] = {"scrape_interval": every, "evaluation_interval": every}
    config["rule_files"] = [str(HERE / pattern) for pattern in config["rule_files"]]
    config["scrape_configs"] = [
        {**job, "static_configs": [{"targets": [targets[job["job_name"]]]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def command(config: Path, data: Path, port: int) -> list[str]:
    """The command line.

    Args:
        config: as ``configuration`` writes it.
        data: folder for the samples.
        port: on loopback.
    """
    binary = tool("prometheus")
    found = [
        str(binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    if binary.is_relative_to(UNPACKED):  # Debian's keeps its pages beside it
        found.append(f"--web.local-assets={UNPACKED}/share/prometheus/web/")
    return found


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str | float) -> Any:
        """``data`` of an answer of the API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """The samples of ``expr`` now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of ``expr`` from ``start`` to ``end`` (Unix times), ``step`` seconds apart."""
        found: list[dict[str, Any]] = self.get(
            "query_range", query=expr, start=start, end=end, step=step
        )["result"]
        return found


@contextmanager
def running(
    folder: Path, targets: dict[str, str], interval_seconds: int, port: int
) -> Iterator[Prometheus]:
    """A Prometheus that keeps everything in ``folder``, until the block ends."""
    config = configuration(folder, targets, interval_seconds)
    url, log = f"http://127.0.0.1:{port}", folder / "prometheus.log"
    with served(command(config, folder / "data", port), f"{url}/-/ready", log):
        yield Prometheus(url)


def main() -> None:
    """Watch the service on this machine until Ctrl-C: ``make monitor``."""
    data = Path(".prometheus")
    try:
        binary, settings = tool("prometheus"), load(MonitorSettings)
        check_port("127.0.0.1", settings.prometheus_port, "PROMETHEUS_PORT")
        data.mkdir(exist_ok=True)
        gateway, engine = (f"127.0.0.1:{p}" for p in (settings.port, settings.engine_port))
        config = configuration(data, {"gateway": gateway, "engine": engine}, 5)
    except StartError as error:
        sys.exit(f"monitor: {error}")
    sys.stdout.write(
        f"Prometheus: http://127.0.0.1:{settings.prometheus_port}, watching gateway {gateway} and "
        f"engine {engine}; samples in {data}; Ctrl-C stops\n"
    )
    sys.stdout.flush()
    os.execv(binary, command(config, data / "data", settings.prometheus_port))


if __name__ == "__main__":
    main()
