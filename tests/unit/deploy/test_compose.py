"""deploy/compose.yaml: what Compose's own schema says of it, and this project's rules."""

import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml

from loadtests.service import ROOT
from serving.engine.settings import EngineSettings
from serving.gateway.settings import GatewaySettings

COMPOSE = ROOT / "deploy" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?([^}]*)\}")
NEEDED = {"GRAFANA_PASSWORD", "VLLM_API_KEY", "KEYS"}
FROM_ELSEWHERE = {"HF_TOKEN"}
"""Environment variables of the engine's that are not its own settings."""


def interpolated(text: str) -> str:
    """As Compose reads it, with nothing set but what has to be."""
    return VARIABLE.sub(lambda found: "secret" if found[2] == ":?" else found[3], text)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text()))["services"]
    return found


def targets() -> dict[str, str]:
    """Targets of the Dockerfile, and their text."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    return dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", text, re.M | re.S))


def test_compose_s_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, COMPOSE], check=True)


def test_docker_compose_reads_it_where_there_is_one() -> None:
    if (
        not shutil.which("docker")
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no docker compose on this machine")
    command = ["docker", "compose", "-f", str(COMPOSE), "--profile", "*", "config", "--quiet"]
    bare = {name: value for name, value in os.environ.items() if name not in NEEDED}
    given = {**bare, **dict.fromkeys(NEEDED, "secret")}
    subprocess.run(command, env=given, check=True)
    for name in NEEDED:
        without = {other: value for other, value in given.items() if other != name}
        done = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
        assert done.returncode and name in done.stderr


def test_a_secret_that_is_not_given_stops_the_start() -> None:
    kinds = {name: kind for name, kind, _ in VARIABLE.findall(COMPOSE.read_text())}
    assert {name for name, kind in kinds.items() if kind == ":?"} == NEEDED
    assert all(kind == ":-" for name, kind in kinds.items() if name not in NEEDED)


def test_images_have_versions_and_limits(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"]
        assert float(limits.get("cpus", 0)) <= 2, "Docker refuses more CPUs than there are"
        assert ("cpus" in limits) == (name != "engine-gpu")
        assert service["cap_drop"] == ["ALL"]
        # The exporter's entrypoint runs ldconfig, which fails where /etc cannot be written.
        assert service["read_only"] == (name != "dcgm-exporter")


def test_what_is_compiled_can_be_loaded(services: dict[str, Any]) -> None:
    for name in ("engine-cpu", "engine-gpu"):
        assert services[name]["tmpfs"] == ["/tmp:exec"]


def test_every_service_says_how_it_is(services: dict[str, Any]) -> None:
    of_image = targets()
    for name, service in services.items():
        if "healthcheck" not in service:
            assert "\nHEALTHCHECK" in of_image[service["build"]["target"]], name


def test_profiles_have_one_engine_each(services: dict[str, Any]) -> None:
    engines = {name: s["profiles"] for name, s in services.items() if name.startswith("engine")}
    assert engines == {"engine-cpu": ["cpu"], "engine-gpu": ["gpu"]}
    assert services["engine-gpu"]["deploy"]["resources"]["reservations"]["devices"]


def test_only_gateway_and_prometheus_reach_the_engine(services: dict[str, Any]) -> None:
    near = {name for name, service in services.items() if "engine" in service.get("networks", [])}
    assert near == {"gateway", "prometheus", "engine-cpu", "engine-gpu"}
    assert not any("ports" in services[name] for name in ("engine-cpu", "engine-gpu"))


def test_what_is_mounted_is_there(services: dict[str, Any]) -> None:
    mounted = [
        COMPOSE.parent / volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    ]
    assert len(mounted) >= 5
    assert [path for path in mounted if not path.exists()] == []


def test_variables_are_settings(services: dict[str, Any]) -> None:
    engine = {name.upper() for name in EngineSettings.model_fields} | FROM_ELSEWHERE
    gateway = {"ENGINE_URL", "VLLM_API_KEY"}
    gateway |= {*(f"GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields)}
    assert services["gateway"]["environment"].keys() <= gateway
    for name in ("engine-cpu", "engine-gpu"):
        assert services[name]["environment"].keys() <= engine
        drain = EngineSettings.model_fields["engine_drain_seconds"].default
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > drain
