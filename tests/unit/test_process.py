"""One line that names the variable."""

import os
from pathlib import Path

import pytest

from serving.engine.settings import EngineSettings
from serving.gateway.settings import GatewaySettings
from serving.process import StartError, cores, load


@pytest.mark.parametrize(
    ("settings", "variable", "value"),
    [
        (GatewaySettings, "PORT", "http"),
        (GatewaySettings, "PORT", "70000"),
        (GatewaySettings, "PORT", "0"),
        (GatewaySettings, "ENGINE_PORT", "8000"),
        (GatewaySettings, "ENGINE_URL", "engine:8001"),
        (GatewaySettings, "ENGINE_PORT", "-1"),
        (GatewaySettings, "GATEWAY_MAX_QUEUE_SECONDS", "-1"),
        (EngineSettings, "ENGINE_PORT", "0"),
        (EngineSettings, "ENGINE_DTYPE", "int3"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    settings: type[EngineSettings], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartError, match=f"^{variable}={value}: ") as caught:
        load(settings)
    assert "\n" not in str(caught.value)


def test_variables_reach_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("ENGINE_PORT", "9001")
    monkeypatch.setenv("GATEWAY_MAX_IN_FLIGHT", "7")
    settings = load(GatewaySettings)
    assert (settings.port, settings.engine, settings.max_in_flight) == (
        9000,
        "http://127.0.0.1:9001",
        7,
    )
    monkeypatch.setenv("ENGINE_URL", "http://engine:8001/")
    assert load(GatewaySettings).engine == "http://engine:8001"
    assert load(EngineSettings).engine_port == 9001


@pytest.mark.parametrize(
    ("allowed", "limit", "found"),
    [
        (2, "max 100000", 2),
        (16, "850000 100000", 8.5),
        (4, "1600000 100000", 4),
        (128, "", 128),
        (16, None, 16),
    ],
)
def test_cores_are_those_that_the_container_s_quota_leaves(
    allowed: int, limit: str | None, found: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr("serving.process.CPU_LIMIT", tmp_path / "cpu.max")
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cores() == found
