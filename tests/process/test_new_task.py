"""A third task, as docs/new-task.md says: added to a copy of the repository, and served there."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from loadtests.service import ROOT, free_port, served

PAGE = (ROOT / "docs" / "new-task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
(LINE,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
(IMPORT,) = re.findall(r"with its import, `(.*?)`", PAGE)
NAME = "cooldown"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the third task, and with no other change."""
    folder = tmp_path_factory.mktemp("new_task")
    for name in ("serving", "dataset", "loadtests", "finetune/recipes", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("data"))
    for path, text in FILES.items():
        assert not (folder / path).exists()
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    registry = folder / "serving" / "tasks" / "registry.py"
    text = registry.read_text(encoding="utf-8")
    after, first = "        MonthTask(),\n", "from serving.tasks.month.task import MonthTask\n"
    assert text.count(after) == text.count(first) == 1
    text = text.replace(after, after + LINE).replace(first, f"{first}{IMPORT}\n")
    registry.write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, *words: str) -> str:
    """What a module of the copy prints."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def get(url: str, body: bytes | None = None) -> str:
    asked = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as response:
        text: bytes = response.read()
    return text.decode()


def test_its_files_are_all_that_it_takes(copy: Path) -> None:
    assert {Path(path).parts[0] for path in FILES} == {"serving", "dataset", "finetune"}
    assert LINE.count("\n") == 1
    assert NAME in json.loads(run(copy, "serving.tasks"))


def test_it_is_served_checked_counted_and_described(copy: Path, tmp_path: Path) -> None:
    """Behind the gateway is an engine that writes any legal answer."""
    port, engine_port = str(free_port()), str(free_port())
    engine, url = f"http://127.0.0.1:{engine_port}", f"http://127.0.0.1:{port}"
    upstream = ["-m", "uvicorn", "loadtests.bench.upstream:app", "--port", engine_port]
    variables = {**os.environ, "PORT": port, "ENGINE_URL": engine}
    profile = json.dumps(
        {
            "experience": 1,
            "gender": "남성",
            "purpose": 1,
            "rm_weight": {
                "bench_press": 40, "squat": 50, "dead_lift": 55, "over_head_press": 30,
            },
        }
    ).encode()  # fmt: skip
    with (
        served([sys.executable, *upstream], f"{engine}/health", tmp_path / "e", folder=copy),
        served(
            [sys.executable, "-m", "serving.gateway"],
            f"{url}/readyz",
            tmp_path / "g",
            variables,
            copy,
        ),
    ):
        answer: dict[str, Any] = json.loads(get(f"{url}/gen/routine/{NAME}", profile))
        assert answer["plan"] == f"{answer['part']} 스트레칭 {answer['minutes']}분"
        schema = json.loads(get(f"{url}/openapi.json"))
        metrics = get(f"{url}/metrics")
    assert f"/gen/routine/{NAME}" in schema["paths"]
    assert "CooldownAnswer" in schema["components"]["schemas"]
    assert f'routine_decisions_total{{adapter="{NAME}"}} 2.0' in metrics
    assert f'routine_semantic_violations_total{{adapter="{NAME}",rule="plan"}} 0.0' in metrics
    assert f'routine_adapter_ready{{adapter="{NAME}"}} 1.0' in metrics


def test_it_has_a_dataset_and_is_loaded_and_compared(copy: Path, tmp_path: Path) -> None:
    run(copy, "dataset.generate", "--out", str(tmp_path), "--scale", "0.01")
    (row, *_) = (tmp_path / NAME / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(row)["prompt"].startswith("## 질문\n-훈련 마무리\n")
    users = run(copy, "locust", "-f", "loadtests/load/locustfile.py", "--list")
    assert "CooldownClient" in users
    code = "from loadtests.bench.__main__ import PLANS; print(*PLANS['demo'].groups)"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=copy, text=True)
    assert NAME in done.split()
