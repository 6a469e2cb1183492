"""What the terminal shows of processes that run together, and what is in the file."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.service import ROOT, free_port
from tests.kit.waiting import wait_for

PARTS = """
import http.server, os, sys
print("noise of", sys.argv[0])
print('{"level":"WARNING","message":"adapter rate is not loaded"}')
print('{"level":"WARNING","message":"request","status":503}')
print('{"level":"INFO","message":"waiting"}')
print('{no JSON')

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = self.path == "/readyz" and os.path.exists("sick")
        self.send_response(503 if sick else 200)
        self.end_headers()

def serve(variable):
    http.server.HTTPServer(("127.0.0.1", int(os.environ[variable])), Handler).serve_forever()
"""
ENGINE = "from parts import serve\nprint('engine: demo on CPU')\nserve('ENGINE_PORT')\n"
GATEWAY = "from parts import serve\nserve('PORT')\n"


class Run:
    """``together`` with programs of a test's own for engine and gateway."""

    def __init__(self, folder: Path, engine: str, gateway: str = GATEWAY, **variables: str) -> None:
        for name, text in (("parts", PARTS), ("fake_engine", engine), ("fake_gateway", gateway)):
            (folder / f"{name}.py").write_text(text)
        parts = {"engine": "fake_engine", "gateway": "fake_gateway"}
        self.url, self.log = f"http://127.0.0.1:{free_port()}", folder / "serve.log"
        ports = {"PORT": self.url.rpartition(":")[2], "ENGINE_PORT": str(free_port())}
        self._seen = folder / "seen"
        with self._seen.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from serving.together import together; together({parts})"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", **ports, **variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def seen(self) -> list[str]:
        """The terminal's lines, with the same time in all."""
        text = self._seen.read_text(encoding="utf-8")
        return re.sub(r"^ *\d+\.\d s  ", "T ", text, flags=re.M).splitlines()


def test_the_terminal_has_the_steps_and_a_line_to_try_and_the_file_all(tmp_path: Path) -> None:
    run = Run(tmp_path, ENGINE)
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(30) == 0
    own = {"T engine: demo on CPU", "T engine: warning: adapter rate is not loaded",
           "T gateway: warning: adapter rate is not loaded", "T done: loading the model",
           "T done: trying adapters and constraints"}  # fmt: skip
    first, *steps, ready, curl, last = run.seen
    assert first == "T starting; log: serve.log"
    assert set(steps) == own
    assert ready == f"T ready: {run.url} (API page: {run.url}/docs). Try:"
    assert curl.startswith(f"curl {run.url}/gen/routine/rate ")
    assert json.loads(curl.partition("-d '")[2][:-1])["gender"] == "남성"
    assert last == "T SIGINT received: stopping"
    text = run.log.read_text(encoding="utf-8")
    for line in ("engine  | noise of", "gateway | noise of", '"status":503', '"waiting"'):
        assert line in text


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("sys.exit('engine: port 1 cannot be used: set ENGINE_PORT')",
         "T engine: port 1 cannot be used: set ENGINE_PORT"),
        ("raise KeyError('weights')",
         "T engine exited unexpectedly (exit status 1); last line: KeyError: 'weights'"),
        ("os._exit(0)",
         "T engine exited unexpectedly (exit status 0); last line: {no JSON"),
    ],
)  # fmt: skip
def test_what_ends_by_itself_is_one_line_that_says_why(end: str, line: str, tmp_path: Path) -> None:
    run = Run(tmp_path, f"import os, sys, parts\n{end}\n")
    assert run.process.wait(30) != 0
    (said,) = [shown for shown in run.seen if "warning" not in shown and "starting" not in shown]
    assert said == line


DIES = """
import os, pathlib, threading, time
from parts import serve
def die():
    while not pathlib.Path("die").exists():
        time.sleep(0.05)
    print("the end")
    os._exit(3)
threading.Thread(target=die).start()
serve('ENGINE_PORT')
"""
STOPS = """
import signal, sys, time
from parts import serve
def stop(*_):
    print("asked to stop")
    time.sleep({seconds})
    print("stopped")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
serve({port!r})
"""


def test_what_stops_is_started_again_until_it_cannot_be_kept_running(tmp_path: Path) -> None:
    run = Run(tmp_path, DIES)
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    (tmp_path / "die").touch()
    again = "T engine exited unexpectedly (exit status 3); starting it again; last line: the end"
    wait_for(lambda: again in run.seen)
    (tmp_path / "die").unlink()
    time.sleep(2)
    assert run.process.poll() is None
    (tmp_path / "die").touch()
    assert run.process.wait(60) == 1
    assert run.seen[-1] == "T engine cannot be kept running: stopping"
    assert run.seen.count(again) >= 3


def test_the_gateway_stops_before_the_engine(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        STOPS.format(seconds=0, port="ENGINE_PORT"),
        STOPS.format(seconds=1, port="PORT"),
    )
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(30) == 0
    lines = run.log.read_text(encoding="utf-8").splitlines()
    said = [line[9:] for line in lines if line.endswith(("asked to stop", "| stopped"))]
    assert said == [
        "gateway | asked to stop", "gateway | stopped", "engine  | asked to stop",
        "engine  | stopped",
    ]  # fmt: skip


def test_an_engine_without_progress_is_killed_and_started_again(tmp_path: Path) -> None:
    """It answers its health check; the gateway says that it is not ready."""
    run = Run(tmp_path, ENGINE, ENGINE_HANG_SECONDS="1")
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    (tmp_path / "sick").touch()
    killed = "T engine: no progress for 1 s: killing it"
    wait_for(lambda: killed in run.seen)
    (tmp_path / "sick").unlink()
    again = "T engine exited unexpectedly (terminated by SIGKILL); starting it again; last line: "
    wait_for(lambda: any(line.startswith(again) for line in run.seen))
    wait_for(lambda: "T ready again" in run.seen)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(30) == 0


def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, ENGINE, STOPS.format(seconds=60, port="PORT"))
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: "asked to stop" in run.log.read_text(encoding="utf-8"))
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(10) == 0


def test_with_log_json_all_goes_to_standard_output(tmp_path: Path) -> None:
    run = Run(tmp_path, "import parts\n", LOG="json")
    assert run.process.wait(30) != 0
    assert any("engine  | noise of" in line for line in run.seen)
    assert not run.log.exists()


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path, ENGINE, LOG="nowhere/serve.log")
    assert run.process.wait(30) == 1
    assert run.seen == [
        "serve: LOG=nowhere/serve.log cannot be written (No such file or directory): set LOG"
    ]


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, ENGINE, LOG="/dev/full")
    wait_for(lambda: any(line.startswith("curl") for line in run.seen))
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(30) == 0


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path, ENGINE, GATEWAY_LOG_LEVEL="loud")
    assert run.process.wait(30) == 1
    (line,) = run.seen
    assert line.startswith("serve: GATEWAY_LOG_LEVEL=loud: ")
