"""Generate the files derived from code: ``make documents``.

These are the tables of variables and metrics, and the API document. All are committed; a test fails
if they differ from this module's output.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings
from tabulate import tabulate

from deploy.observability.prometheus import MonitorSettings
from deploy.ray.cluster import ClusterSettings
from serving.engine.settings import EngineSettings
from serving.gateway.app import create_app
from serving.gateway.metrics import Metrics
from serving.gateway.settings import GatewaySettings
from serving.metrics import Described
from serving.tasks.registry import TASKS
from serving.together import RunSettings
from serving.vllm_plugin.metrics import DrafterMetrics

HERE = Path(__file__).parent
CONFIGURATION = HERE.parent / "docs" / "configuration.md"
API = HERE.parent / "docs" / "openapi.json"
METRICS = HERE / "observability" / "metrics.md"


def metrics_page() -> str:
    """Return the Markdown page of this project's metrics."""

    def table(described: list[Described]) -> str:
        rows = [
            (f"`{m.name}`", m.kind, ", ".join(f"`{name}`" for name in m.labels), m.text)
            for m in sorted(described, key=lambda m: m.name)
        ]
        return tabulate(rows, ["metric", "kind", "labels", "meaning"], tablefmt="pipe")

    return "\n\n".join(
        [
            "# Metrics",
            "Written by `make documents` from the code. A test freezes names and labels. No label "
            "has a value that a client can choose.",
            "## The gateway's (`/metrics` of the gateway)",
            "An adapter's label is its name, which is also its task's; the base model has its own, "
            "and a model that the engine does not serve is `other`.",
            table(Metrics().described),
            "## The drafter's (`/metrics` of the engine, beside vLLM's `vllm:*`)",
            table(DrafterMetrics(TASKS).described) + "\n",
        ]
    )


SETTINGS: dict[str, type[BaseSettings]] = {
    "The gateway": GatewaySettings,
    "The engine": EngineSettings,
    "`make serve`": RunSettings,
    "`make serve-cluster`": ClusterSettings,
    "`make monitor`": MonitorSettings,
}


def configuration_page() -> str:
    """Return the Markdown page of all environment variables."""
    parts = [
        "# Configuration",
        "Environment variables, written by `make documents` from the settings' docstrings. A wrong "
        "value stops the start with one line that names the variable.",
    ]
    for title, settings in SETTINGS.items():
        prefix = settings.model_config.get("env_prefix", "")
        rows = []
        for name, field in settings.model_fields.items():
            variable = name if field.validation_alias else prefix + name
            default = str(field.default).replace(f"{HERE.parent}/", "")
            meaning = " ".join((field.description or "").replace("``", "`").split())
            rows.append((f"`{variable.upper()}`", f"`{default}`" if default else "", meaning))
        table = tabulate(rows, ["variable", "default", "meaning"], tablefmt="pipe")
        parts += [f"## {title}", table]
    return "\n\n".join(parts) + "\n"


def api_document() -> str:
    """Return the gateway's OpenAPI document."""

    async def described() -> dict[str, Any]:
        app = create_app(GatewaySettings())
        async with app.router.lifespan_context(app):  # adds the routes
            return app.openapi()

    return json.dumps(asyncio.run(described()), ensure_ascii=False, indent=1) + "\n"


DOCUMENTS = {
    CONFIGURATION: configuration_page,
    API: api_document,
    METRICS: metrics_page,
}


def main() -> None:
    for path, write in DOCUMENTS.items():
        path.write_text(write(), encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
