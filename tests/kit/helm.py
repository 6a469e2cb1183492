"""The chart as Helm makes manifests of it."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml

from loadtests.service import ROOT

CHART = ROOT / "deploy" / "helm"
HELM = ROOT / ".venv" / "helm" / "bin" / "helm"
CLAIM = {"models.claim": "models"}

Resource = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *words], capture_output=True, text=True, check=False)


def made(namespace: str = "routine", **given: Any) -> list[Resource]:
    """All that the chart makes of values by name, with ``__`` for dots."""
    values = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in given.items()]
    sets = [f"--set-json={value}" for value in values]
    done = helm("template", "routine", str(CHART), "--namespace", namespace, *sets)
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def of(kind: str, models: Mapping[str, Any] = CLAIM, **more: Any) -> list[Resource]:
    """The same with engines of a kind, and models by values' paths."""
    names = {name.replace(".", "__"): value for name, value in models.items()}
    return made(**{**names, "engine__kind": kind, **more})


def named(resources: list[Resource], kind: str, name: str) -> Resource:
    """The one of ``kind`` with this name."""
    (found,) = [r for r in resources if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    return found
