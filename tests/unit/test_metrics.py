"""The folder in which several processes count together."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.metrics import FOLDER, NEEDED_BYTES, new_folder, remove_folder
from serving.process import StartError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_start_removes_what_killed_processes_left(root: Path) -> None:
    code = "import os; print(os.getpid())"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    dead = root / f"routine-metrics-{int(ended.stdout)}-abc"
    alive = root / f"routine-metrics-{os.getppid()}-abc"
    other = root / "routine-metrics-report"
    for folder in (dead, alive, other):
        folder.mkdir()
    own = Path(new_folder())
    assert sorted(root.iterdir()) == sorted([alive, other, own])


def test_only_the_owner_removes_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM starts helpers that load its plugins, inherit the environment, and end early."""
    own = new_folder()
    monkeypatch.setenv(FOLDER, own)
    code = "from serving.metrics import remove_folder; remove_folder()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Path(own).exists()
    remove_folder()
    assert not Path(own).exists()


def test_a_full_disk_stops_the_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(root)._replace(free=NEEDED_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StartError, match="make room, or set TMPDIR"):
        new_folder()
