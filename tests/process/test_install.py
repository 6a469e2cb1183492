"""The installer, in a folder of its own: uv, pip where uv cannot, one line where neither can."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loadtests.service import ROOT

PROJECT = """
[project]
name = "sample"
version = "1"
[tool.setuptools]
packages = ["serving"]
"""

WHEEL = {
    "METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1+cpu\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this one's installer and a list of one package, a torch that is empty."""
    (tmp_path / "serving").mkdir()
    (tmp_path / "requirements").mkdir()
    for name in ("serving/__init__.py", "serving/terminal.py", "requirements/install.py",
                 "requirements/uv.txt"):  # fmt: skip
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "list.txt").write_text("torch==0.0.1+cpu\nsetuptools==78.1.1\n")
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "torch-0.0.1+cpu-py3-none-any.whl", "w") as wheel:
        info = "torch-0.0.1+cpu.dist-info"
        for name, text in WHEEL.items():
            wheel.writestr(f"{info}/{name}", text)
    return tmp_path


def install(project: Path, **variables: str) -> tuple[int, list[str], str]:
    """Exit code, the terminal's lines and the log."""
    done = subprocess.run(
        [sys.executable, "-m", "requirements.install", ".venv", "list.txt"],
        cwd=project,
        env={**os.environ, "PIP_FIND_LINKS": str(project / "wheels"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = (project / ".venv" / "install.log").read_text()
    return done.returncode, done.stdout.splitlines(), log


def installed(project: Path) -> str:
    return subprocess.run(
        [project / ".venv" / "bin" / "python", "-m", "pip", "list"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_uv_installs_the_list_and_the_project(project: Path) -> None:
    code, said, log = install(project)
    assert (code, len(said)) == (0, 2), log
    assert said[0].endswith("installing 2 packages into .venv; log: .venv/install.log")
    assert said[1].endswith("installed")
    assert "uv pip install" in log
    assert {"torch", "sample"} <= {line.split()[0] for line in installed(project).splitlines()}


def test_pip_does_where_uv_cannot(project: Path) -> None:
    code, said, log = install(project, UV_OFFLINE="1", UV_CACHE_DIR=str(project / "empty"))
    assert (code, len(said)) == (0, 3), log
    assert said[1].endswith("uv cannot install here (see .venv/install.log): pip does, more slowly")
    assert {"torch", "sample"} <= {line.split()[0] for line in installed(project).splitlines()}


def test_a_package_whose_hash_is_not_in_the_list_is_not_installed(project: Path) -> None:
    (project / "list.txt").write_text(f"torch==0.0.1+cpu\nsix==1.17.0 --hash=sha256:{'0' * 64}\n")
    code, said, log = install(project)
    assert code == 1
    assert said[-1].startswith("install: installing packages failed")
    assert "Hash mismatch for `six==1.17.0`" in log  # of uv
    assert f"Expected sha256 {'0' * 64}" in log  # of pip
    assert "six" not in {line.split()[0] for line in installed(project).splitlines()}


def test_every_package_in_the_lists_has_hashes() -> None:
    lines = {
        line
        for path in (ROOT / "requirements").glob("*.txt")
        if path.name != "overrides-cpu.txt"
        for line in path.read_text().splitlines()
    }
    without = {line for line in lines if "--hash=sha256:" not in line}
    assert len(lines) > 380
    assert without <= {"torch==2.13.0+cpu"}  # has hashes at PyTorch's own index alone


def test_no_network_is_one_line(project: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null"}
    code, said, log = install(project, PIP_NO_CACHE_DIR="1", PIP_RETRIES="0", **nowhere)
    assert code == 1
    assert said[-1].startswith("install: installing packages failed: connect to the package")
    assert "127.0.0.1:9" in log
    assert len(said) == 3
