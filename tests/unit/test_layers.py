"""Who may import whom, what the tasks may load, and that nothing outside names a task."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.tasks.registry import TASKS

ROOT = Path(__file__).parents[2]
LANGUAGE, TASK = {"serving.language"}, {"serving.language", "serving.tasks"}
MODEL = {"serving.lock", "serving.adapter"}
PROCESS = {
    "serving.process",
    "serving.tracing",
    "serving.metrics",
    "serving.terminal",
    "serving.limit",
    "serving.keys",
}
ALLOWED = {
    "serving.language": LANGUAGE,
    "serving.tasks": TASK,
    "serving.vllm_plugin": {"serving.vllm_plugin", "serving.lock", *TASK, *PROCESS},
    "serving.engine": {"serving.engine", "serving.vllm_plugin", *MODEL, *TASK, *PROCESS},
    "serving.gateway": {"serving.gateway", *TASK, *PROCESS},
    "dataset": {"dataset", *TASK},
    "finetune": {
        "finetune",
        "loadtests.service",
        "loadtests.report",
        "serving.engine",
        "serving.process",
        *MODEL,
        *TASK,
    },
    "loadtests": {"loadtests", "serving.engine", "serving.lock", *TASK},
    "deploy": {"deploy", "loadtests", "serving"},
}
"""Layer to what it may import of ours. Nothing imports the tests."""
OURS = ("serving", "dataset", "finetune", "loadtests", "deploy", "tests")
NAME_NO_TASK = ("serving/gateway", "serving/vllm_plugin", "serving/engine", "dataset", "finetune",
                "loadtests", "deploy")  # fmt: skip


def trees(folder: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] in OURS}


def test_imports_point_at_language_and_tasks() -> None:
    looked_at = 0
    for layer, allowed in ALLOWED.items():
        for path, tree in trees(layer.replace(".", "/")):
            looked_at += 1
            for name in imports(tree):
                inside = any(name == good or name.startswith(f"{good}.") for good in allowed)
                assert inside, f"{path} imports {name}"
    assert looked_at > 80


def test_nothing_outside_its_folder_names_a_task() -> None:
    for folder in NAME_NO_TASK:
        for path, tree in trees(folder):
            if path.parts[:2] == ("dataset", "coaches"):
                continue
            named = {name.split(".")[2] for name in imports(tree) if name.count(".") > 2}
            named |= {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not named & set(TASKS), path


def test_the_tasks_load_no_torch_vllm_or_fastapi() -> None:
    code = (
        "import sys, serving.tasks.registry as t, serving.lock\n"
        "[task.question(r).output.regex for task in t.TASKS.values() for r in task.examples]\n"
        "heavy = ('torch', 'vllm', 'fastapi', 'aiohttp', 'icalendar')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
