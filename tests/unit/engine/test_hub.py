"""Models from the Hugging Face Hub, from a hub of this test's own."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.engine.settings import DEMO
from serving.lock import LOCK_NAME, sha256
from serving.tasks.registry import TASKS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
LOCATE = """
import sys
from serving.engine.preflight import check_model
from serving.engine.settings import EngineSettings
found = check_model(EngineSettings())
print(found.base, found.adapters)
"""


class Hub(ThreadingHTTPServer):
    """Serves the folders ``root/org/name`` as repositories, in one revision.

    Attributes:
        fetched: files that were asked for, by repository and path.
        breaking: a file whose transfer ends in the middle, once.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Repository)
        self.root, self.fetched, self.breaking = root, list[str](), ""


class Repository(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def _answer(self, whole: bool) -> None:
        words = self.path.partition("?")[0].strip("/").split("/")
        if words[0] == "api":
            self._tell(*words[2:])
            return
        organization, name, _, _, *rest = words
        path = self.server.root / organization / name / "/".join(rest)
        if not path.is_file():
            self._send(404, b"", {"x-error-code": "EntryNotFound", "x-repo-commit": COMMIT})
            return
        etag = sha256(path)
        content = path.read_bytes()
        if whole:
            self.server.fetched.append(f"{name}/{path.name}")
            start = int(self.headers.get("range", "bytes=0-")[6:].partition("-")[0])
            content = content[start:]
        headers = {"etag": f'"{etag}"', "x-repo-commit": COMMIT}
        if not whole:
            self._send(200, content, headers, sent=b"")
        elif path.name == self.server.breaking:
            self.server.breaking = ""
            self._send(200, content, headers, sent=content[: len(content) // 2])
        else:
            self._send(206 if start else 200, content, headers)

    def _tell(
        self, organization: str = "", name: str = "", kind: str = "", revision: str = "main"
    ) -> None:
        """Answer the hub's questions about a repository: its commit, or its files (``tree``)."""
        folder = self.server.root / organization / name
        if revision not in ("main", COMMIT, "v2") or not folder.is_dir():
            self._send(404, b"", {"x-error-code": "RevisionNotFound"})
            return
        files = [path for path in folder.rglob("*") if path.is_file()]
        tree = [
            {
                "type": "file",
                "path": str(path.relative_to(folder)),
                "size": path.stat().st_size,
                "oid": sha256(path),
            }
            for path in files
        ]
        told = tree if kind == "tree" else {"id": f"{organization}/{name}", "sha": COMMIT}
        self._send(200, json.dumps(told).encode(), {"content-type": "application/json"})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], sent: bytes | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if sent is None else sent)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with the demo's base, in another format too, and its adapters."""
    shutil.copytree(DEMO / "base", tmp_path / "hub" / "we" / "base")
    (tmp_path / "hub" / "we" / "base" / "pytorch_model.bin").write_bytes(b"pickle")
    shutil.copytree(DEMO / "adapters", tmp_path / "hub" / "we" / "adapters")
    with Hub(tmp_path / "hub") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def locate(hub: Hub, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    told = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "MODEL": "we/base",
        "ADAPTERS": "we/adapters@v2",
    }
    command = [sys.executable, "-c", LOCATE]
    return subprocess.run(
        command,
        env={**os.environ, **told, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_base_and_adapters_come_from_the_hub_and_no_other_weights(hub: Hub, tmp_path: Path) -> None:
    done = locate(hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    base, adapters = map(Path, done.stdout.split())
    assert COMMIT in str(base) and COMMIT in str(adapters)
    assert (adapters / LOCK_NAME).is_file()
    assert f"base/{WEIGHTS}" in hub.fetched
    assert "base/pytorch_model.bin" not in hub.fetched
    assert {path.name for path in adapters.iterdir()} <= {LOCK_NAME, *TASKS}
    hub.fetched.clear()
    again = locate(hub, tmp_path / "home")
    assert (again.stdout, hub.fetched) == (done.stdout, [])


def test_a_fetch_that_broke_off_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.breaking = WEIGHTS
    done = locate(hub, tmp_path / "home")
    assert hub.breaking == "", "the transfer was not broken"
    again = locate(hub, tmp_path / "home") if done.returncode else done
    assert again.returncode == 0, again.stderr
    assert hub.fetched.count(f"base/{WEIGHTS}") == 2
    assert hub.fetched.count("base/tokenizer.json") == 1


def test_without_the_hub_the_cache_is_enough(hub: Hub, tmp_path: Path) -> None:
    assert locate(hub, tmp_path / "home").returncode == 0
    away = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for adapters in ("we/adapters@v2", "we/adapters"):
        done = locate(hub, tmp_path / "home", ADAPTERS=adapters, **away)
        assert (done.returncode == 0) == ("@" in adapters), done.stderr
    assert locate(hub, tmp_path / "home", ADAPTERS="we/adapters").returncode == 0
    assert locate(hub, tmp_path / "home", ADAPTERS="we/adapters", **away).returncode == 0


@pytest.mark.parametrize(
    ("adapters", "why"),
    [
        ("we/adapters@v3", "404"),
        ("we/adapters@refs/pr/1", "404"),
        ("we/nothing", "404"),
        ("we/base", "it has no lock.json"),
    ],
)
def test_adapters_that_are_not_there_are_one_line(
    adapters: str, why: str, hub: Hub, tmp_path: Path
) -> None:
    done = locate(hub, tmp_path / "home", ADAPTERS=adapters)
    assert done.returncode
    said = done.stderr.splitlines()[-1]
    assert f"ADAPTERS={adapters} are not in the Hugging Face cache" in said
    assert why in said
