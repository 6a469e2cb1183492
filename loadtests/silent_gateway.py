"""The gateway without metrics and traces, to measure what they cost:
``python -m loadtests.silent_gateway`` takes the gateway's own settings."""

from __future__ import annotations

from typing import Any

from serving.gateway import app
from serving.gateway.__main__ import main
from serving.gateway.metrics import Metrics
from serving.gateway.telemetry import Telemetry
from serving.startup import TraceTarget


class Nothing:
    """Every metric: takes whatever it is told and keeps nothing."""

    def __getitem__(self, name: str) -> Nothing:
        return self

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *_: object) -> Nothing:
        return self


class Silent(Telemetry):
    """Counts and records nothing."""

    def __init__(self, metrics: Metrics, traces: TraceTarget | None) -> None:
        super().__init__(metrics, None)
        nothing: Any = Nothing()
        self.metrics = nothing


if __name__ == "__main__":
    app.Telemetry = Silent  # type: ignore[attr-defined]
    main()
