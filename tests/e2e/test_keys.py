"""Keys before the real engine, for the clients that people have."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import openai
import pytest

from loadtests.service import ROOT, free_port, own_ports, served
from serving.keys import create, revoke
from tests.kit.bad_requests import GOOD
from tests.kit.doors import open_doors, statuses
from tests.kit.stack import ENGINE_KEY, Stack

CLIENT = Path(sys.prefix) / "bin" / "routine531"


class Keyed(NamedTuple):
    """A gateway that asks for keys."""

    url: str
    metrics: str
    file: Path
    log: Path


@pytest.fixture(scope="module")
def keyed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    file, log, port = folder / "keys.json", folder / "log", str(free_port())
    file.write_text('{"keys": []}')
    environment, url, _ = own_ports()
    environment |= {"ENGINE_URL": stack.engine_url, "VLLM_API_KEY": ENGINE_KEY}
    environment |= {"GATEWAY_KEYS": str(file), "GATEWAY_METRICS_PORT": port}
    with served([sys.executable, "-m", "serving.gateway"], f"{url}/readyz", log, environment):
        yield Keyed(url, f"http://127.0.0.1:{port}/metrics", file, log)


def test_the_smoke_test_of_a_cluster_takes_what_is_right_and_nothing_else(keyed: Keyed) -> None:
    """What deploy/kind asks there."""

    def smoke(url: str, secret: str) -> tuple[int, str]:
        command = [str(ROOT / "deploy" / "kind" / "smoke.sh"), url, secret]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert smoke(keyed.url, key(keyed, "smoke")) == (0, "smoke: ready, right, closed to others\n")
    code, said = smoke(keyed.url, "routine-wrong")
    assert code == 1 and "invalid_api_key" in said
    assert smoke(f"http://127.0.0.1:{free_port()}", "x")[0]


def key(keyed: Keyed, name: str, **fields: object) -> str:
    """Make a key that is in force."""
    secret = create(keyed.file, name, fields)
    time.sleep(1.5)
    return secret


def asked(keyed: Keyed, secret: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line's client."""
    environment = {"ROUTINE531_URL": keyed.url, "ROUTINE531_KEY": secret}
    return subprocess.run(
        [CLIENT, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def openai_client(keyed: Keyed, secret: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=secret, max_retries=0)


def test_clients_need_a_key_and_it_ends_when_it_is_revoked(keyed: Keyed, tmp_path: Path) -> None:
    request, lines = tmp_path / "request.json", tmp_path / "in.jsonl"
    request.write_text(json.dumps(GOOD))
    lines.write_text((json.dumps(GOOD) + "\n") * 3)
    mine = key(keyed, "mine")
    secrets = {"mine": mine, "wrong": mine[:-1] + "?"}
    for name, secret in secrets.items():
        client = openai_client(keyed, secret)
        done = asked(keyed, secret, "rate", "--request", request, "--json")
        batch = asked(keyed, secret, "batch", lines, tmp_path / f"{name}.jsonl")
        if name == "wrong":
            assert done.returncode == batch.returncode == 2
            assert "there is no such API key" in done.stderr
            with client, pytest.raises(openai.AuthenticationError, match="no such API key"):
                client.models.list()
            continue
        assert done.returncode == batch.returncode == 0, done.stderr + batch.stderr
        assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == 3
        with client:
            assert {model.id for model in client.models.list()} >= {"rate", "month"}
            told = client.completions.create(model="demo", prompt="a", max_tokens=2)
        assert told.usage and told.usage.completion_tokens == 2
    with urllib.request.urlopen(keyed.metrics, timeout=5) as response:
        page = response.read().decode()
    assert 'routine_key_requests_total{key="mine",status="200"} 4.0' in page
    revoke(keyed.file, "mine")
    time.sleep(1.5)
    assert asked(keyed, mine, "rate", "--request", request).returncode == 2
    log = keyed.log.read_text()
    assert '"key":"mine"' in log.replace(" ", "")
    assert mine not in log


def test_openai_s_client_waits_as_its_key_s_limit_says(keyed: Keyed) -> None:
    secret = key(keyed, "slow", requests_per_second=1)
    with openai_client(keyed, secret) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
        assert caught.value.response.headers["x-ratelimit-limit-requests"] == "1"
        assert client.with_options(max_retries=5).models.list()


def test_the_engine_serves_the_gateway_alone(stack: Stack) -> None:
    assert statuses(stack.engine_url, ENGINE_KEY, "/health", "/metrics") == [200, 200]
    assert open_doors(stack.engine_url, ENGINE_KEY) == []
