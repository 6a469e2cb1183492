"""The engine on Ray: what Serve is told, and what is checked first."""

import importlib.metadata
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deploy.ray.cluster import HERE, ClusterSettings, configuration
from deploy.ray.versions import TESTED_RAY, check_versions
from serving.process import StartError


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_serve_takes_the_configuration(name: str) -> None:
    config = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    (application,) = ServeDeploySchema.model_validate(config).applications
    (deployment,) = application.deployments
    assert (application.route_prefix, deployment.name) == ("/", "Engine")
    assert "CPU" in application.args["bundle"]
    assert ("GPU" in application.args["bundle"]) == (name == "gpu")


def test_this_machine_s_cluster_answers_here_alone() -> None:
    config = configuration(ClusterSettings(engine_port=4321))
    assert config["http_options"] == {"host": "127.0.0.1", "port": 4321}
    assert config["applications"][0]["deployments"][0]["num_replicas"] == 2


@pytest.mark.parametrize("text", [None, "a: [", "- a list", ""])
def test_a_configuration_that_is_none_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(StartError, match=f"SERVE_CONFIG={path}: ") as caught:
        configuration(ClusterSettings(serve_config=path))
    assert "\n" not in str(caught.value)


def test_the_tested_versions_are_here() -> None:
    check_versions()


@pytest.mark.parametrize("name", ["ray", "vllm"])
def test_other_versions_are_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(asked: str) -> str:
        return "9.9" if asked.startswith(name) else real(asked)

    monkeypatch.setattr("deploy.ray.versions.version", version)
    with pytest.raises(StartError, match=f"{name} .* is needed, 9.9 is installed") as caught:
        check_versions()
    assert "make environment" in str(caught.value)


def test_the_lock_has_the_tested_ray() -> None:
    pins = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"ray[serve]=={TESTED_RAY}" in pins
