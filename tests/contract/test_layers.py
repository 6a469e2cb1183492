"""Who may import whom, and what the contract may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = {"serving.contract", "serving.startup", "serving.instruments"}
ALLOWED = {
    "serving.contract": {"serving.contract"},
    "serving.gateway": {"serving.gateway", *SHARED},
    "serving.engine": {"serving.engine", *SHARED},
    "dataset": {"dataset", "serving.contract"},
    "finetune": {"finetune", "serving.contract"},
    "loadtests": {
        "loadtests",
        *SHARED,
        "serving.engine",
    },
    "deploy": {
        "deploy",
        *SHARED,
        "serving.engine",
        "serving.gateway.metrics",
        "serving.together",
        "loadtests",
    },
}
"""Layer to the layers it may import."""
OURS = ("serving", "dataset", "finetune", "loadtests", "deploy", "tests")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] in OURS}


def test_imports_point_at_the_contract() -> None:
    looked_at = 0
    for layer, allowed in ALLOWED.items():
        for path in (ROOT / Path(*layer.split("."))).rglob("*.py"):
            looked_at += 1
            for name in imports(path):
                inside = any(name == good or name.startswith(f"{good}.") for good in allowed)
                assert inside, f"{path.relative_to(ROOT)} imports {name}"
    assert looked_at > 25


def test_the_contract_loads_no_torch_vllm_or_fastapi() -> None:
    code = (
        "import sys, serving.contract.tasks as t, serving.contract.lock\n"
        "[task.output(r).regex for task in t.TASKS.values() for r in task.examples]\n"
        "print([m for m in ('torch', 'vllm', 'fastapi', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
