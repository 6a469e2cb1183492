"""An engine that takes too much memory ends itself, and says so."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from serving import process
from serving.engine.command import environment
from serving.engine.machine import Machine
from serving.engine.settings import EngineSettings
from serving.vllm_plugin.cap import VARIABLE

TAKES = """
import subprocess, sys, time
from serving.vllm_plugin import cap
cap.CHECK_SECONDS = 0.05
cap.start()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
taken = b"x" * ({mib} << 20)
time.sleep(2)
"""


@pytest.mark.parametrize(("mib", "code"), [(300, 1), (1, 0)])
def test_too_much_memory_ends_the_engine_with_one_line(mib: int, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKES.format(mib=mib)],
        env={**os.environ, VARIABLE: "0.2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, *said = done.stdout.splitlines()
    assert done.returncode == code
    if code:
        assert said == [f"engine: it takes more than 0.20 GiB ({VARIABLE}): ending it"]
        with suppress(psutil.NoSuchProcess):
            assert psutil.Process(int(first)).status() == psutil.STATUS_ZOMBIE
    else:
        assert said == []
        psutil.Process(int(first)).kill()


def test_the_cap_is_the_setting_or_nearly_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(gpu=True, dtype="auto", reason="", warning="", threads=1)
    told = environment(EngineSettings(engine_memory_gib=3), machine, None)
    assert told[VARIABLE] == "3.0"
    monkeypatch.setattr("serving.engine.command.memory_gib", lambda: 10.0)
    assert environment(EngineSettings(), machine, None)[VARIABLE] == "9.5"


def test_a_container_s_memory_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(process, "MEMORY_LIMIT", limit)
    whole = process.memory_gib()
    limit.write_text("max\n")
    assert process.memory_gib() == whole
    limit.write_text(f"{2**30}\n")
    assert process.memory_gib() == 1
