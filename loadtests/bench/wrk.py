"""Runner for wrk. Each connection sends one request after another."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadtests.programs import LIBRARIES, program

SCRIPT = Path(__file__).with_suffix(".lua")
HINT = "wrk is not installed: `make bench-gateway` brings it, or install Debian's package wrk"


@dataclass(frozen=True)
class Run:
    """Results of one run."""

    requests: int
    seconds: float
    errors: int
    """Responses other than 2xx and 3xx, and failed connections."""
    median_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def run(url: str, bodies: Path, connections: int, seconds: int) -> Run:
    """Post ``bodies`` to ``url`` for ``seconds``.

    Args:
        url: full URL, including the path.
        bodies: file with one JSON body per line, sent in turn.
        connections: number of concurrent requests.
        seconds: duration.

    Raises:
        RuntimeError: wrk is not installed, or failed.
    """
    binary = program("wrk")
    if binary is None:
        raise RuntimeError(HINT)
    command = [binary, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", SCRIPT, url, "--", bodies]
    found = os.environ.get("LD_LIBRARY_PATH", "")
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "LD_LIBRARY_PATH": f"{LIBRARIES}:{found}".strip(":")},
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))
