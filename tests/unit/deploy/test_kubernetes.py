"""The manifests as kustomize puts them together: Kubernetes' own schemas, this project's rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.ray.versions import TESTED_RAY
from loadtests.service import ROOT
from serving.engine.settings import EngineSettings
from serving.gateway.metrics import Metrics
from serving.gateway.settings import GatewaySettings
from serving.tasks.registry import TASKS
from serving.vllm_plugin.metrics import DrafterMetrics

MANIFESTS = ROOT / "deploy" / "kubernetes"
PARTS = "gateway", "engine"
NAME = "app.kubernetes.io/name"

Resource = dict[str, Any]


def applied(overlay: str | Path) -> list[Resource]:
    """All that an overlay applies."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which has kustomize in it, is not on this machine")
    command = ["kubectl", "kustomize", str(MANIFESTS / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return applied(request.param)


@pytest.fixture(scope="module")
def on_ray() -> list[Resource]:
    return applied("ray")


def named(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = [r for r in resources if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    return found


def pod(resources: list[Resource], part: str) -> Resource:
    found: Resource = named(resources, "Deployment", part)["spec"]["template"]["spec"]
    return found


def container(resources: list[Resource], part: str) -> Resource:
    (found,) = pod(resources, part)["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("overlay", "others"),
    [
        ("cpu", {"ScaledObject", "ServiceMonitor", "PrometheusRule"}),
        ("gpu", {"ScaledObject", "ServiceMonitor", "PrometheusRule"}),
        ("ray", {"RayService", "ServiceMonitor", "PodMonitor", "PrometheusRule"}),
    ],
)
def test_kubernetes_schemas(overlay: str, others: set[str]) -> None:
    """What is of KEDA, the Prometheus operator and KubeRay has none there."""
    left = set()
    for resource in applied(overlay):
        if resource["kind"] in others:
            left.add(resource["kind"])
        else:
            kubernetes_validate.validate(resource, "1.37", strict=True)
    assert left == others


def test_the_pod_that_fills_the_volume() -> None:
    (pod,) = yaml.safe_load_all((MANIFESTS / "models" / "pod.yaml").read_text())
    kubernetes_validate.validate(pod, "1.37", strict=True)
    (claim,) = pod["spec"]["volumes"]
    assert named(
        applied("cpu"), "PersistentVolumeClaim", claim["persistentVolumeClaim"]["claimName"]
    )


def test_a_second_service_beside_the_first_as_the_rollout_page_has_it(tmp_path: Path) -> None:
    page = (ROOT / "deploy" / "rollout.md").read_text()
    shutil.copytree(MANIFESTS, tmp_path / "deploy" / "kubernetes")
    (script,) = re.findall(r"^mkdir deploy/.*?^YAML$", page, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    second = applied(tmp_path / "deploy" / "kubernetes" / "gpu-2")
    assert len(second) == len(applied("gpu"))
    places = {r["metadata"].get("namespace", r["metadata"]["name"]) for r in second}
    assert places == {"routine-2"}
    assert {container(second, part)["image"].rpartition(":")[2] for part in PARTS} == {"0.2.0"}


@pytest.mark.parametrize("part", PARTS)
def test_pods_have_few_rights(resources: list[Resource], part: str) -> None:
    """Those of Kubernetes' "restricted" standard, and a root file system that cannot be written."""
    whole, inner = (pod(resources, part), container(resources, part))
    assert whole["securityContext"]["runAsNonRoot"] and whole["securityContext"]["runAsUser"] > 0
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert whole["automountServiceAccountToken"] is False
    assert inner["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = {m["mountPath"] for m in inner["volumeMounts"] if not m.get("readOnly")}
    assert {"/tmp", "/cache"} <= written
    labels = named(resources, "Namespace", "routine")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("part", PARTS)
def test_services_set_no_variables(resources: list[Resource], part: str) -> None:
    """Kubernetes would set ENGINE_PORT=tcp://... for the Service ``engine``."""
    assert pod(resources, part)["enableServiceLinks"] is False
    settings = {
        "engine": {name.upper() for name in EngineSettings.model_fields} | {"HF_TOKEN"},
        "gateway": {"ENGINE_URL", "VLLM_API_KEY"}
        | {f"GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields},
    }
    assert {v["name"] for v in container(resources, part)["env"]} <= settings[part]


@pytest.mark.parametrize("part", PARTS)
def test_probes(resources: list[Resource], part: str) -> None:
    inner = container(resources, part)
    paths = [
        inner[probe].get("httpGet", {}).get("path")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    ]
    if part == "gateway":
        assert paths == ["/healthz", "/readyz", "/healthz"]
        return
    assert paths == ["/health", "/health", None]
    command = inner["livenessProbe"]["exec"]["command"]
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"CMD {json.dumps(command)}" in dockerfile
    start = inner["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300


def test_what_goes_drains(resources: list[Resource]) -> None:
    """Load balancers hear of it first; then what was begun is ended."""
    work = {
        "gateway": GatewaySettings.model_fields["drain_seconds"].default,
        "engine": EngineSettings.model_fields["engine_drain_seconds"].default,
    }
    for part, seconds in work.items():
        before = container(resources, part)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert before >= 5
        assert pod(resources, part)["terminationGracePeriodSeconds"] >= before + seconds


@pytest.mark.parametrize("part", PARTS)
def test_services_and_budgets_select_the_pods(resources: list[Resource], part: str) -> None:
    deployment = named(resources, "Deployment", part)["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    service = named(resources, "Service", part)["spec"]
    assert service["selector"].items() <= labels.items()
    assert {p["targetPort"] for p in service["ports"]} == {
        p["name"] for p in container(resources, part)["ports"]
    }
    budget = named(resources, "PodDisruptionBudget", part)["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    (spread,) = pod(resources, part)["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_only_the_gateway_and_prometheus_reach_the_engine(resources: list[Resource]) -> None:
    nobody = named(resources, "NetworkPolicy", "nobody")["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress"]}
    policies = [r for r in resources if r["kind"] == "NetworkPolicy"]
    of_engine = [
        r for r in policies if r["spec"]["podSelector"].get("matchLabels") == {NAME: "engine"}
    ]
    ((rule,),) = [policy["spec"]["ingress"] for policy in of_engine]
    assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == [
        {NAME: "gateway"},
        {NAME: "prometheus"},
    ]


def test_scaling_follows_metrics_that_exist(resources: list[Resource]) -> None:
    pods = named(resources, "HorizontalPodAutoscaler", "gateway")["spec"]
    queue = named(resources, "ScaledObject", "engine")["spec"]
    for spec, part in ((pods, "gateway"), (queue, "engine")):
        target = spec["scaleTargetRef"]
        assert named(resources, target["kind"], target["name"])["metadata"]["name"] == part
        assert "replicas" not in named(resources, "Deployment", part)["spec"]
    (trigger,) = queue["triggers"]
    asked = set(re.findall(r"\w+:?\w*(?=\))", trigger["metadata"]["query"]))
    ours = {m.name for m in Metrics().described + DrafterMetrics(TASKS).described}
    assert len(asked) == 2 and asked <= ours | {"vllm:num_requests_waiting"}
    assert pods["minReplicas"] >= 2 and queue["minReplicaCount"] >= 1


def test_prometheus_finds_both(resources: list[Resource]) -> None:
    for part in PARTS:
        monitor, service = (named(resources, kind, part) for kind in ("ServiceMonitor", "Service"))
        monitor = monitor["spec"]
        (endpoint,) = monitor["endpoints"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"][monitor["jobLabel"]] == part  # the rules' job
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_secrets_are_named_not_told(resources: list[Resource]) -> None:
    told = [v for part in PARTS for v in container(resources, part)["env"]]
    secret = [v for v in told if re.search("TOKEN|KEY|PASSWORD|SECRET", v["name"])]
    assert sorted(v["name"] for v in secret if "valueFrom" in v) == [
        "HF_TOKEN",
        "VLLM_API_KEY",
        "VLLM_API_KEY",
    ]
    (file,) = [v for v in secret if "value" in v]
    assert file["name"] == "GATEWAY_KEYS"
    (mount,) = [
        m
        for m in container(resources, "gateway")["volumeMounts"]
        if file["value"].startswith(m["mountPath"] + "/")
    ]
    volumes = {volume["name"]: volume for volume in pod(resources, "gateway")["volumes"]}
    assert mount["readOnly"] and "secret" in volumes[mount["name"]]


def test_images_are_those_of_compose(resources: list[Resource]) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    limits = container(resources, "engine")["resources"]["limits"]
    kind = "gpu" if "nvidia.com/gpu" in limits else "cpu"
    assert container(resources, "gateway")["image"] == compose["gateway"]["image"]
    assert container(resources, "engine")["image"] == compose[f"engine-{kind}"]["image"]


def test_the_engine_has_its_model_its_cache_and_shared_memory(resources: list[Resource]) -> None:
    volumes = {volume["name"]: volume for volume in pod(resources, "engine")["volumes"]}
    mounts = {m["mountPath"]: m for m in container(resources, "engine")["volumeMounts"]}
    claim = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert mounts["/models"]["readOnly"]
    assert named(resources, "PersistentVolumeClaim", claim)
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    assert "emptyDir" in volumes[mounts["/cache"]["name"]]


def ray_groups(resources: list[Resource]) -> dict[str, Resource]:
    """Head and workers of the Ray cluster: their pods' templates."""
    cluster = named(resources, "RayService", "engine")["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"]["template"], "workers": workers["template"]}


def test_ray_serves_the_one_configuration(on_ray: list[Resource]) -> None:
    embedded = named(on_ray, "RayService", "engine")["spec"]["serveConfigV2"]
    assert embedded == (ROOT / "deploy" / "ray" / "gpu.yaml").read_text()


def test_ray_s_pods(on_ray: list[Resource]) -> None:
    """Kubernetes' schema, few rights, the versions and the folders of the image."""
    spec = named(on_ray, "RayService", "engine")["spec"]["rayClusterConfig"]
    assert spec["rayVersion"] == TESTED_RAY
    assert spec["authOptions"] == {"mode": "token"}
    rights = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["autoscalerOptions"]["securityContext"] == rights
    for template in ray_groups(on_ray).values():
        as_kubernetes_has_it = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "ray"},
            "template": template,
        }
        kubernetes_validate.validate(as_kubernetes_has_it, "1.37", strict=True)
        whole = template["spec"]
        (inner,) = whole["containers"]
        assert whole["securityContext"]["runAsNonRoot"]
        assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inner["securityContext"] == rights
        assert inner["image"] == "routine-ray-gpu:0.1.0"
        settings = {name.upper() for name in EngineSettings.model_fields}
        settings |= {"HF_TOKEN", "RAY_USAGE_STATS_ENABLED"}
        assert {v["name"] for v in inner["env"]} <= settings
        assert whole["enableServiceLinks"] is False
        mounts = {m["mountPath"]: m for m in inner["volumeMounts"]}
        assert mounts["/models"]["readOnly"]
        assert {"/tmp", "/cache", "/dev/shm"} <= set(mounts)
        used = {mount["name"] for mount in mounts.values()}
        assert used == {volume["name"] for volume in whole["volumes"]}


def test_a_worker_has_what_a_replica_asks_for(on_ray: list[Resource]) -> None:
    service = named(on_ray, "RayService", "engine")["spec"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    bundle = application["args"]["bundle"]
    (deployment,) = application["deployments"]
    (workers,) = service["rayClusterConfig"]["workerGroupSpecs"]
    (inner,) = workers["template"]["spec"]["containers"]
    limits = inner["resources"]["limits"]
    assert bundle["GPU"] == int(limits["nvidia.com/gpu"])
    assert bundle["CPU"] <= int(limits["cpu"])
    scale = deployment["autoscaling_config"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (
        scale["min_replicas"],
        scale["max_replicas"],
    )
    assert service["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_gateway_finds_ray_and_is_let_in(on_ray: list[Resource]) -> None:
    told = {v["name"]: v.get("value") for v in container(on_ray, "gateway")["env"]}
    assert told["ENGINE_URL"] == "http://engine-serve-svc:8000"  # KubeRay: <name>-serve-svc
    assert not [r for r in on_ray if (r["kind"], r["metadata"]["name"]) == ("Service", "engine")]
    rules = named(on_ray, "NetworkPolicy", "engine")["spec"]["ingress"]
    (of_gateway,) = [
        r for r in rules if {"podSelector": {"matchLabels": {NAME: "gateway"}}} in r["from"]
    ]
    assert of_gateway["ports"] == [{"port": "serve"}]
    (inner,) = ray_groups(on_ray)["head"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in inner["ports"]}
    assert ports["serve"] == 8000
    assert {port["port"] for rule in rules for port in rule.get("ports", [])} <= set(ports)
