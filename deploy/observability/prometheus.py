"""Run Prometheus with this project's configuration for ``make monitor``, tests and the preview.

Uses the machine's Prometheus, or the Debian package that ``make prometheus`` unpacks into the
virtual environment.
"""

import json
import os
import shutil
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

from loadtests.service import served
from serving.process import StartError, check_port, load

HERE = Path(__file__).parent
UNPACKED = Path(sys.prefix) / "debian" / "usr"
"""Where the Makefile unpacks Debian's packages."""
HINT = "Prometheus is not installed: `make prometheus`, or install Debian's package prometheus"


class MonitorSettings(BaseSettings):
    """Settings of ``make monitor``."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the gateway."""
    gateway_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the gateway's metrics; 0 if it is the same."""
    engine_port: int = Field(default=8001, ge=1, le=65535)
    """Port of the engine."""
    prometheus_port: int = Field(default=9090, ge=1, le=65535)
    """Port that Prometheus listens on."""


def tool(name: str) -> Path:
    """Return the path of ``prometheus`` or ``promtool``.

    Raises:
        StartError: the program is not installed.
    """
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=os.pathsep.join((path, str(UNPACKED / "bin"))))
    if found is None:
        raise StartError(HINT)
    return Path(found)


def configuration(folder: Path, targets: dict[str, str], interval_seconds: int) -> Path:
    """Write a prometheus.yml for targets outside a cluster and return its path.

    Args:
        folder: output folder.
        targets: ``host:port`` by job; other jobs are omitted.
        interval_seconds: scrape and rule evaluation interval.
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
    """Return the Prometheus command line.

    Args:
        config: file written by ``configuration``.
        data: storage folder.
        port: port on loopback.
    """
    binary = tool("prometheus")
    found = [
        str(binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    if binary.is_relative_to(UNPACKED):  # Debian ships the web assets separately
        found.append(f"--web.local-assets={UNPACKED}/share/prometheus/web/")
    return found


class Prometheus:
    """Client for a running Prometheus's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the ``data`` field of an API response."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Return the current samples of ``expr``."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Return ``expr`` from ``start`` to ``end`` (Unix times) at ``step``-second intervals."""
        found: list[dict[str, Any]] = self.get(
            "query_range", query=expr, start=start, end=end, step=step
        )["result"]
        return found


@contextmanager
def running(
    folder: Path, targets: dict[str, str], interval_seconds: int, port: int
) -> Iterator[Prometheus]:
    """Run Prometheus until the block exits, with all its files in ``folder``."""
    config = configuration(folder, targets, interval_seconds)
    url, log = f"http://127.0.0.1:{port}", folder / "prometheus.log"
    with served(command(config, folder / "data", port), f"{url}/-/ready", log):
        yield Prometheus(url)


def main() -> None:
    """Monitor the service on this machine until Ctrl-C: ``make monitor``."""
    data = Path(".prometheus")
    try:
        binary, settings = tool("prometheus"), load(MonitorSettings)
        check_port("127.0.0.1", settings.prometheus_port, "PROMETHEUS_PORT")
        data.mkdir(exist_ok=True)
        ports = (settings.gateway_metrics_port or settings.port, settings.engine_port)
        gateway, engine = (f"127.0.0.1:{port}" for port in ports)
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
