"""The chart's manifests: Helm's own checks, Kubernetes' and the operators' schemas, our rules."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from pydantic import BaseModel

from deploy.ray.versions import TESTED_RAY
from loadtests.service import ROOT
from serving.engine.settings import EngineSettings
from serving.gateway.metrics import Metrics
from serving.gateway.settings import GatewaySettings
from serving.tasks.registry import TASKS
from serving.vllm_plugin.metrics import DrafterMetrics
from tests.kit.helm import CHART, CLAIM, Resource, helm, made, named, of

PARTS = "gateway", "engine"
NAME = "app.kubernetes.io/name"
NEWEST, OLDEST = "1.37", "1.30"
"""Kubernetes versions whose schemas must take the manifests; the chart says from which on."""
RIGHTS = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
RCLONE = {"models.rclone.remote": "s3:models/1", "models.rclone.secret": "rclone"}
HUB = {"models.base": "EleutherAI/polyglot-ko-1.3b", "models.adapters": "you/adapters@v2"}
SMALLEST_NODE = {"cpu": 3.7, "memory": 13.3}
"""CPUs and GiB that a node of 4 CPUs and 16 GiB leaves to pods, where it leaves least."""


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return of(request.param)


@pytest.fixture(scope="module")
def on_ray() -> list[Resource]:
    return of("ray", engine__replicas={"min": 2, "max": 4})


def kinds(resources: list[Resource]) -> set[tuple[str, str]]:
    return {(r["kind"], r["metadata"]["name"]) for r in resources}


def pod(resources: list[Resource], part: str) -> Resource:
    found: Resource = named(resources, "Deployment", part)["spec"]["template"]["spec"]
    return found


def container(resources: list[Resource], part: str) -> Resource:
    (found,) = pod(resources, part)["containers"]
    assert isinstance(found, dict)
    return found


def amount(text: str | int) -> float:
    """A Kubernetes quantity in CPUs or GiB."""
    found = re.fullmatch(r"([\d.]+)(m|Mi|Gi)?", str(text))
    assert found, text
    return float(found[1]) * {"m": 1e-3, "Mi": 2**-10, "Gi": 1, None: 1}[found[2]]


def test_helm_finds_nothing_to_complain_of() -> None:
    done = helm("lint", "--strict", str(CHART), "--set", "models.claim=models")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "set models.claim, models.image or models.rclone.remote"),
        ({**CLAIM, "engine.king": "gpu"}, "'king' not allowed"),
        ({**CLAIM, "engine.kind": "tpu"}, "/engine/kind"),
        ({**CLAIM, "engine.replicas.min": 0}, "/engine/replicas/min"),
        ({**CLAIM, "engine.env": {"max-len": "1"}}, "/engine/env"),
        ({**CLAIM, "ingress.host": "plans.example.org"}, "/ingress/tlsSecret"),
        ({"models.rclone.remote": "s3:models"}, "models.rclone.secret: name the Secret"),
        ({**CLAIM, **RCLONE}, "models: name one of"),
        ({**CLAIM, "images.registry": "ghcr.io/you"}, "/images/registry"),
        ({**CLAIM, "engine.replicas": {"min": 5, "max": 4}}, "engine.replicas: min is more"),
        ({**CLAIM, "gateway.replicas.min": 9}, "gateway.replicas: min is more"),
        (
            {**CLAIM, "engine.kind": "ray", "engine.resources.ray.requests.cpu": "3500m"},
            "Ray counts whole CPUs",
        ),
    ],
)
def test_values_that_cannot_serve_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    sets = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    done = helm("template", "routine", str(CHART), *sets)
    assert done.returncode
    assert words in done.stderr, done.stderr


OPERATORS: dict[str, type[BaseModel]] = {
    "ScaledObject": ScaledObject,
    "ServiceMonitor": ServiceMonitor,
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
}
WITHOUT_SCHEMA = {"RayService", "HTTPRoute"}


@pytest.mark.parametrize("kind", ["cpu", "gpu", "ray"])
@pytest.mark.parametrize(
    "models", [CLAIM, RCLONE, HUB, {"models.image": "ghcr.io/you/models:1"}],
    ids=["claim", "rclone", "hub", "image"],
)  # fmt: skip
@pytest.mark.parametrize("route", ["ingress", "route"])
def test_schemas_take_what_is_made(kind: str, models: Mapping[str, Any], route: str) -> None:
    way: dict[str, Any] = (
        {"ingress__tlsSecret": "tls", "ingress__className": "nginx"}
        if route == "ingress"
        else {"ingress__gateway": {"name": "public", "namespace": "gateways"}}
    )
    extra: dict[str, Any] = {
        "models__lockKey": "lock",
        "engine__cacheClaim": "cache",
        "engine__runtimeClassName": "nvidia",
        "engine__nodeSelector": {"pool": "gpu"},
        "images__pullSecrets": [{"name": "registry"}],
    }
    for resource in of(kind, models, ingress__host="plans.example.org", **way, **extra):
        if resource["kind"] in OPERATORS:
            if resource["kind"] == "ScaledObject":  # KEDA 2.17's; the schema is 2.16's
                assert resource["spec"]["fallback"].pop("behavior") == "currentReplicasIfHigher"
            read = OPERATORS[resource["kind"]].model_validate(resource)
            again = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
            assert again == resource, "it has a field that the operator does not know"
        elif resource["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(resource, NEWEST, strict=True)
            if "models.image" not in models:
                kubernetes_validate.validate(resource, OLDEST, strict=True)


def test_the_chart_asks_for_the_oldest_kubernetes_that_takes_it() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">= {OLDEST}.0-0"
    assert chart["appVersion"] in (ROOT / "pyproject.toml").read_text()


def test_two_releases_have_their_own_namespaces(resources: list[Resource]) -> None:
    assert not [r for r in resources if "namespace" in r["metadata"]]
    second = made(namespace="routine-2", **{"models__claim": "models"})
    assert 'namespace=\\"routine\\"' not in json.dumps(second)
    assert 'namespace=\\"routine-2\\"' in json.dumps(second)


@pytest.mark.parametrize("part", PARTS)
def test_pods_have_few_rights(resources: list[Resource], part: str) -> None:
    """Those of Kubernetes' "restricted" standard, and a root file system that cannot be written."""
    whole = pod(resources, part)
    assert whole["securityContext"]["runAsNonRoot"] and whole["securityContext"]["runAsUser"] > 0
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert whole["automountServiceAccountToken"] is False
    for inner in (*whole["containers"], *whole.get("initContainers", ())):
        assert inner["securityContext"] == RIGHTS
        assert inner["resources"]["limits"]["memory"]
    written = {
        m["mountPath"] for m in container(resources, part)["volumeMounts"] if not m.get("readOnly")
    }
    assert {"/tmp", "/cache"} <= written


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


def test_numbers_of_a_values_file_are_variables_as_they_stand(tmp_path: Path) -> None:
    """Helm reads them as floats, and writes a million as 1e+06."""
    given = {"A": 1048576, "B": 16777216, "C": 0.5, "D": 3, "E": True, "F": "2 GB"}
    values = {"models": {"claim": "models"}, "gateway": {"env": given}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("template", "routine", str(CHART), "-f", str(tmp_path / "values.yaml"))
    found = [resource for resource in yaml.safe_load_all(done.stdout) if resource]
    told = {v["name"]: v.get("value") for v in container(found, "gateway")["env"]}
    assert {name: told[name] for name in given} == {
        "A": "1048576", "B": "16777216", "C": "0.5", "D": "3", "E": "true", "F": "2 GB",
    }  # fmt: skip


def test_variables_can_be_given() -> None:
    given = of(
        "gpu", engine__env={"ENGINE_MAX_NUM_SEQS": 256}, gateway__env={"GATEWAY_PAGES": "no"}
    )
    assert {"name": "ENGINE_MAX_NUM_SEQS", "value": "256"} in container(given, "engine")["env"]
    assert {"name": "GATEWAY_PAGES", "value": "no"} in container(given, "gateway")["env"]


def test_a_gateway_that_was_ready_once_stays_in_the_service(resources: list[Resource]) -> None:
    """Without engines, somebody has to answer 503. A new one must prove itself first."""
    inner = container(resources, "gateway")
    paths = {
        probe: inner[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {
        "startupProbe": "/readyz", "readinessProbe": "/healthz", "livenessProbe": "/healthz",
    }  # fmt: skip
    start = inner["startupProbe"]
    of_engine = container(resources, "engine")["startupProbe"]
    patience = start["periodSeconds"] * start["failureThreshold"]
    assert patience > of_engine["periodSeconds"] * of_engine["failureThreshold"] >= 600


def test_an_engine_that_hangs_is_replaced(resources: list[Resource]) -> None:
    command = container(resources, "engine")["livenessProbe"]["exec"]["command"]
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"CMD {json.dumps(command)}" in dockerfile


def test_what_goes_drains(resources: list[Resource]) -> None:
    """Load balancers hear of it first; then what was begun is ended."""
    work = {
        "gateway": GatewaySettings.model_fields["drain_seconds"].default,
        "engine": EngineSettings.model_fields["engine_drain_seconds"].default,
    }
    # A name server beside the node's pods may keep addresses for half a minute.
    least = {"gateway": 5, "engine": 30}
    for part, seconds in work.items():
        before = container(resources, part)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert before >= least[part]
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


@pytest.mark.parametrize("kind", ["cpu", "gpu", "ray"])
def test_prometheus_is_where_the_values_say(kind: str) -> None:
    found = of(kind, monitoring__namespace="observability", monitoring__labels={"team": "plans"})
    policies = [r for r in found if r["kind"] == "NetworkPolicy"]
    assert json.dumps(policies).count('"kubernetes.io/metadata.name": "observability"') == 2
    picked = [r for r in found if r["apiVersion"].startswith("monitoring.coreos.com")]
    picked.append(named(found, "ConfigMap", "routine-dashboard"))
    assert len(picked) == 4
    assert all(r["metadata"]["labels"]["team"] == "plans" for r in picked)
    without = of(kind, monitoring__enabled=False)
    assert not [r for r in without if r["apiVersion"].startswith("monitoring.coreos.com")]


@pytest.mark.parametrize("kind", ["cpu", "gpu", "ray"])
def test_default_requests_fit_the_smallest_node(kind: str) -> None:
    found = of(kind)
    inners = (
        [container(found, "engine"), container(found, "gateway")]
        if kind != "ray"
        else [template["spec"]["containers"][0] for template in ray_groups(found).values()]
    )
    for inner in inners:
        for name, most in SMALLEST_NODE.items():
            assert amount(inner["resources"]["requests"][name]) <= most
        assert amount(inner["resources"]["limits"]["memory"]) <= SMALLEST_NODE["memory"]


def test_scaling_follows_metrics_that_exist(resources: list[Resource]) -> None:
    pods = named(resources, "HorizontalPodAutoscaler", "gateway")["spec"]
    queue = named(resources, "ScaledObject", "engine")["spec"]
    for spec, part in ((pods, "gateway"), (queue, "engine")):
        target = spec["scaleTargetRef"]
        assert named(resources, target["kind"], target["name"])["metadata"]["name"] == part
        assert "replicas" not in named(resources, "Deployment", part)["spec"]
    (trigger,) = queue["triggers"]
    asked = set(re.findall(r"[\w:]+(?=\{)", trigger["metadata"]["query"]))
    ours = {m.name for m in Metrics().described + DrafterMetrics(TASKS).described}
    assert asked <= ours | {"vllm:num_requests_running", "vllm:num_requests_waiting"}
    assert len(asked) == 3
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert queue["fallback"]["replicas"] >= queue["minReplicaCount"] >= 1
    assert pods["minReplicas"] >= 2


def test_a_new_version_of_the_chart_alone_replaces_no_pod(resources: list[Resource]) -> None:
    for part in PARTS:
        labels = named(resources, "Deployment", part)["spec"]["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def test_without_autoscalers_the_numbers_are_fixed() -> None:
    found = of("cpu", engine__autoscaling=False, gateway__replicas={"min": 3, "max": 3})
    assert named(found, "Deployment", "engine")["spec"]["replicas"] == 1
    assert named(found, "Deployment", "gateway")["spec"]["replicas"] == 3
    assert not {"ScaledObject", "HorizontalPodAutoscaler"} & {kind for kind, _ in kinds(found)}
    ten = of("cpu", engine__autoscaling=False, engine__replicas={"min": 10, "max": 10})
    assert "engine 20 engine." in named(ten, "ConfigMap", "spread")["data"]["haproxy.cfg"]
    ray = named(of("ray", engine__autoscaling=False), "RayService", "engine")["spec"]
    (workers,) = ray["rayClusterConfig"]["workerGroupSpecs"]
    assert workers["maxReplicas"] == workers["minReplicas"] == 1
    assert "max_replicas: 1" in ray["serveConfigV2"]


def test_prometheus_finds_both(resources: list[Resource]) -> None:
    for part in PARTS:
        monitor, service = (named(resources, kind, part) for kind in ("ServiceMonitor", "Service"))
        monitor = monitor["spec"]
        (endpoint,) = monitor["endpoints"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"][monitor["jobLabel"]] == part  # the rules' job
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_dashboard_is_the_one_of_compose(resources: list[Resource]) -> None:
    carried = named(resources, "ConfigMap", "routine-dashboard")
    assert carried["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = carried["data"].values()
    (path,) = (ROOT / "deploy" / "observability" / "grafana" / "dashboards").glob("*.json")
    assert json.loads(text) == json.loads(path.read_text())
    assert len(text) < 2**20 - 2**14  # a ConfigMap's limit


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


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("models", "source"),
    [
        (CLAIM, {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}),
        ({"models.image": "you/models:1"}, {"image": {"reference": "you/models:1"}}),
        (RCLONE, {"emptyDir": {"sizeLimit": "20Gi"}}),
        (HUB, None),
    ],
)
def test_the_engine_has_its_model_its_cache_and_shared_memory(
    kind: str, models: Mapping[str, Any], source: Resource | None
) -> None:
    found = of(kind, models)
    volumes = {volume.pop("name"): volume for volume in pod(found, "engine")["volumes"]}
    mounts = {m["mountPath"]: m for m in container(found, "engine")["volumeMounts"]}
    assert volumes.get("models") == source
    assert ("/models" in mounts) == (source is not None)
    assert all(mount["readOnly"] for path, mount in mounts.items() if path == "/models")
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    assert "emptyDir" in volumes[mounts["/cache"]["name"]]
    fetching = pod(found, "engine").get("initContainers", [])
    assert len(fetching) == (models is RCLONE)
    for init in fetching:
        assert init["args"][0] == "copy" and "s3:models/1" in init["args"]
        assert {m["name"] for m in init["volumeMounts"]} <= set(volumes)
        assert not {m["mountPath"]: m for m in init["volumeMounts"]}["/models"].get("readOnly")


def test_nobody_outside_is_shown_metrics() -> None:
    found = of("cpu", ingress__host="plans.example.org", ingress__tlsSecret="tls")
    ingress = named(found, "Ingress", "gateway")["spec"]
    assert ingress["tls"] == [{"hosts": ["plans.example.org"], "secretName": "tls"}]
    (rule,) = ingress["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "gateway", "port": {"name": "http"}}
    assert {"name": "GATEWAY_METRICS_PORT", "value": "9100"} in container(found, "gateway")["env"]
    route = named(
        of("cpu", ingress__host="plans.example.org", ingress__gateway={"name": "public"}),
        "HTTPRoute", "gateway",
    )["spec"]  # fmt: skip
    assert route["rules"] == [{"backendRefs": [{"name": "gateway", "port": 80}]}]


def ray_groups(resources: list[Resource]) -> dict[str, Resource]:
    """Head and workers of the Ray cluster: their pods' templates."""
    cluster = named(resources, "RayService", "engine")["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"]["template"], "workers": workers["template"]}


def test_ray_serves_the_one_configuration(on_ray: list[Resource]) -> None:
    """That of deploy/ray, with this release's numbers."""
    embedded = yaml.safe_load(named(on_ray, "RayService", "engine")["spec"]["serveConfigV2"])
    ours = yaml.safe_load((ROOT / "deploy" / "ray" / "gpu.yaml").read_text())
    (scale,) = [a["deployments"][0]["autoscaling_config"] for a in embedded["applications"]]
    assert (scale["min_replicas"], scale["max_replicas"]) == (2, 4)
    for config in (embedded, ours):
        (application,) = config["applications"]
        assert application.pop("args")["bundle"]["GPU"] == 1
        for name in ("min_replicas", "max_replicas", "target_ongoing_requests"):
            del application["deployments"][0]["autoscaling_config"][name]
    assert embedded == ours


def test_ray_s_pods(on_ray: list[Resource]) -> None:
    """Kubernetes' schema, few rights, the versions and the folders of the image."""
    spec = named(on_ray, "RayService", "engine")["spec"]["rayClusterConfig"]
    assert spec["rayVersion"] == TESTED_RAY
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["autoscalerOptions"]["securityContext"] == RIGHTS
    for name, template in ray_groups(on_ray).items():
        as_kubernetes_has_it = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "ray"},
            "template": template,
        }
        kubernetes_validate.validate(as_kubernetes_has_it, NEWEST, strict=True)
        whole = template["spec"]
        (inner,) = whole["containers"]
        assert whole["securityContext"]["runAsNonRoot"]
        assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inner["securityContext"] == RIGHTS
        assert inner["image"] == "routine-ray-gpu:0.1.0"
        settings = {name.upper() for name in EngineSettings.model_fields}
        settings |= {"HF_TOKEN", "RAY_USAGE_STATS_ENABLED"}
        assert {v["name"] for v in inner["env"]} <= settings
        assert whole["enableServiceLinks"] is False
        mounts = {m["mountPath"]: m for m in inner["volumeMounts"]}
        assert ("/models" in mounts) == (name == "workers"), "a head has no use for them"
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
    assert bundle["GPU"] == int(inner["resources"]["limits"]["nvidia.com/gpu"])
    assert bundle["CPU"] == int(workers["rayStartParams"]["num-cpus"])
    assert bundle["CPU"] <= amount(inner["resources"]["requests"]["cpu"])
    scale = deployment["autoscaling_config"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (
        scale["min_replicas"],
        scale["max_replicas"],
    )
    assert service["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_s_pods_can_be_evicted_one_by_one(on_ray: list[Resource]) -> None:
    """Nothing scales them as Kubernetes knows it: only an integer minAvailable is understood."""
    budget = named(on_ray, "PodDisruptionBudget", "engine")["spec"]
    assert budget["minAvailable"] == 1 and "maxUnavailable" not in budget
    assert budget["selector"]["matchLabels"] == {"ray.io/node-type": "worker"}
    alone = of("ray")  # the only one: a budget would forbid every drain
    assert ("PodDisruptionBudget", "engine") not in kinds(alone)


def test_ray_s_engines_are_watched_as_the_others_are(on_ray: list[Resource]) -> None:
    monitor = named(on_ray, "PodMonitor", "engine")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "engine"} in endpoint["relabelings"]
    (inner,) = ray_groups(on_ray)["workers"]["spec"]["containers"]
    assert endpoint["port"] in {port["name"] for port in inner["ports"]}


def test_the_gateway_finds_ray_and_is_let_in(on_ray: list[Resource]) -> None:
    told = {v["name"]: v.get("value") for v in container(on_ray, "gateway")["env"]}
    assert told["ENGINE_URL"] == "http://engine-serve-svc:8000"  # KubeRay: <name>-serve-svc
    assert not {("Service", "engine"), ("ConfigMap", "spread")} & kinds(on_ray)
    assert "initContainers" not in pod(on_ray, "gateway")
    rules = named(on_ray, "NetworkPolicy", "engine")["spec"]["ingress"]
    (of_gateway,) = [
        r for r in rules if {"podSelector": {"matchLabels": {NAME: "gateway"}}} in r["from"]
    ]
    assert of_gateway["ports"] == [{"port": "serve"}]
    (inner,) = ray_groups(on_ray)["head"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in inner["ports"]}
    assert ports["serve"] == 8000
    assert {port["port"] for rule in rules for port in rule.get("ports", [])} <= set(ports)


def test_the_chart_can_be_packed(tmp_path: Path) -> None:
    """With the files that lie elsewhere in the repository."""
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(archive, tmp_path / "there", filter="data")
    files = tmp_path / "there" / "routine" / "files"
    assert (files / "serve.yaml").read_bytes() == (ROOT / "deploy/ray/gpu.yaml").read_bytes()
    assert {p.name for p in (files / "rules").iterdir()} >= {"alerts.yml", "objectives.yml"}
    assert list((files / "dashboards").glob("*.json"))


def pages() -> str:
    return "\n".join((ROOT / "deploy" / name).read_text() for name in ("README.md", "rollout.md"))


def test_the_pages_set_what_the_chart_has(tmp_path: Path) -> None:
    (values,) = re.findall(r"```yaml\n(# my-values.yaml\n.*?)```", pages(), re.DOTALL)
    (tmp_path / "my-values.yaml").write_text(values)
    commands = re.findall(
        r"^helm (?:upgrade|install).*? deploy/helm (.*?)(?:#|$)",
        pages().replace("\\\n", " "),
        re.M,
    )
    assert len(commands) >= 6
    for words in map(shlex.split, commands):
        kept = [word for word in words if word not in ("-f", "my-values.yaml")]
        done = helm(
            "template", "routine", str(CHART), "-f", str(tmp_path / "my-values.yaml"), *kept
        )
        assert done.returncode == 0, (words, done.stderr)
    named_ones = {
        name
        for name in re.findall(r"`([a-z]+(?:\.[\w\"./]+)+)(?:=[^`]*)?`", pages())
        if name.partition(".")[0] in yaml.safe_load((CHART / "values.yaml").read_text())
        and not name.endswith((".yaml", ".md"))
    }
    assert len(named_ones) >= 10
    for name in named_ones:
        found: Any = yaml.safe_load((CHART / "values.yaml").read_text())
        first, *rest = re.findall(r'"[^"]+"|[^.]+', name)
        for part in (first, *rest):
            found = found.get(part.strip('"')) if part.isupper() is False else found
            assert found is not None, name


def test_a_cluster_to_try_it_in_has_what_it_needs() -> None:
    folder = ROOT / "deploy" / "kind"
    done = helm(
        "template", "routine", str(CHART), "-n", "routine", "-f", str(folder / "values.yaml")
    )
    assert done.returncode == 0, done.stderr
    found = [resource for resource in yaml.safe_load_all(done.stdout) if resource]
    assert not {r["apiVersion"].partition("/")[0] for r in found} - {
        "v1", "apps", "policy", "networking.k8s.io",
    }  # fmt: skip
    volume, claim = yaml.safe_load_all((folder / "models.yaml").read_text())
    for resource in (volume, claim):
        kubernetes_validate.validate(resource, NEWEST, strict=True)
    (mount,) = [v for v in pod(found, "engine")["volumes"] if v["name"] == "models"]
    assert mount["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    nodes = yaml.safe_load((folder / "cluster.yaml").read_text())["nodes"]
    for node in nodes[1:]:
        (there,) = node["extraMounts"]
        assert there["containerPath"] == volume["spec"]["hostPath"]["path"]
        assert {"base", "adapters"} <= {path.name for path in (ROOT / there["hostPath"]).iterdir()}
    images = {container(found, part)["image"] for part in PARTS}
    assert all(image in (folder / "run.sh").read_text() for image in images)
