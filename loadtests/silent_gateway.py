"""The gateway without metrics, traces and logs, to measure what they cost:
``python -m loadtests.silent_gateway`` takes the gateway's own settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from opentelemetry.trace import INVALID_SPAN, Span
from prometheus_client import Histogram

from serving.gateway import app, logs
from serving.gateway.metrics import Metrics
from serving.gateway.process import settle
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import Telemetry
from serving.startup import TraceTarget


class Nothing:
    """Every metric: takes whatever it is told and keeps nothing."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *_: object) -> Nothing:
        return self


class Silent(Telemetry):
    """Stages and requests without spans and durations."""

    def __init__(self, metrics: Metrics, traces: TraceTarget | None) -> None:
        super().__init__(metrics, None)
        nothing: Any = Nothing()
        self.metrics = nothing

    @contextmanager
    def request(
        self, method: str, route: str, headers: Mapping[str, str], traced: bool
    ) -> Iterator[Span]:
        yield INVALID_SPAN

    @contextmanager
    def stage(self, name: str, histogram: Histogram, adapter: str) -> Iterator[None]:
        yield


def main() -> None:
    settings = GatewaySettings()
    logs.set_up("error")
    app.Telemetry = Silent  # type: ignore[attr-defined]
    uvicorn.run(
        app.create_app(settings, announce=settle),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        log_config=None,
    )


if __name__ == "__main__":
    main()
