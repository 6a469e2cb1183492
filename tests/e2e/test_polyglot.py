"""polyglot-ko's own tokenizer goes the whole way: rows, training, export, evaluation, serving.

The weights do not lie here; a small GPT-NeoX of the same vocabulary, as random as it began, stands
in for them.
"""

import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

from dataset.generate import SOURCES
from finetune.data import encode_row
from finetune.evaluate import read_rows
from loadtests.service import ROOT
from serving.tasks.registry import TASKS
from tests.kit.stack import Stack
from tests.unit.finetune.tiny import recipe

FILES = Path(__file__).parents[1] / "kit" / "polyglot"
VOCABULARY, TOKENS = 30_080, 30_003
ASKED = 10
EXACT = {"ENGINE_DTYPE": "float32"}
"""Of 30,000 tokens, a model that has hardly been trained finds many as good, to three digits."""
RECIPE = """
train: [{folder}/data/{task}/train.jsonl]
validation: {folder}/data/{task}/validation.jsonl
model: {folder}/base
lora: {{rank: 8, alpha: 16}}
out: {folder}/runs/{task}
steps: 10
warmup_steps: 0
batch: 8
learning_rate: 1.0e-3
decision_weight: 20
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, words)]
    environment = os.environ | EXACT
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the dataset, the base and its tokenizer."""
    made = tmp_path_factory.mktemp("polyglot")
    done = run("dataset.generate", "--out", made / "data", "--scale", ASKED / 1000)
    assert done.returncode == 0, done.stderr
    base = made / "base"
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, max_position_embeddings=2048, bos_token_id=1, eos_token_id=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16).save_pretrained(base)
    tokenizer = lzma.decompress((FILES / "tokenizer.json.xz").read_bytes())
    (base / "tokenizer.json").write_bytes(tokenizer)
    shutil.copy(FILES / "tokenizer_config.json", base)
    return made


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> str:
    """Train, export and evaluate an adapter for each task; what the evaluation said."""
    for task in TASKS:
        path = folder / f"{task}.yaml"
        path.write_text(RECIPE.format(folder=folder, task=task))
        done = run("finetune.train", path)
        assert done.returncode == 0, done.stderr[-3000:]
    of_base = ["--base", folder / "base", "--name", "small"]
    done = run(
        "finetune.export", *of_base, "--adapters", folder / "runs", "--out", folder / "served"
    )
    assert done.returncode == 0, done.stderr
    served, data = folder / "served", ["--test-sets", folder / "data", "--requests", ASKED]
    done = run(
        "finetune.evaluate", "--model", served / "base", "--adapters", served / "adapters", *data
    )
    assert "agrees too rarely with its coach" in done.stderr, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def small(folder: Path, evaluated: str) -> Iterator[Stack]:
    served = folder / "served"
    variables = {"MODEL": str(served / "base"), "ADAPTERS": str(served / "adapters")}
    running = Stack.start(folder / "serve.log", ROOT, "serve", **variables, **EXACT)
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()


@pytest.mark.parametrize("task", TASKS)
def test_no_token_crosses_an_edge_of_a_decision(folder: Path, task: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    assert len(tokenizer) == TOKENS
    for number, row in enumerate(read_rows(folder / "data" / task / "train.jsonl")):
        encoded = encode_row(row, number, tokenizer, recipe())
        assert encoded["input_ids"][-1] == tokenizer.eos_token_id == 1
        assert sum(encoded["decided"]) >= 4


@pytest.mark.timeout(600)
def test_adapters_are_valid_and_served_as_they_were_trained(evaluated: str) -> None:
    for task in TASKS:
        (line,) = [one for one in evaluated.splitlines() if one.startswith(f"{task}: ")]
        assert f"100.0% valid of {ASKED} requests" in line
        assert f"the tokens of {ASKED} of {ASKED} are PEFT's" in line


@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASKS)
async def test_each_task_is_answered_with_drafts(small: Stack, task: str) -> None:
    passes = tokens = 0
    async with aiohttp.ClientSession(small.url) as session:
        for asked in SOURCES[task].requests(7):
            body = asked.model_dump(mode="json")
            async with session.post(f"/gen/routine/{task}", json=body) as response:
                assert response.status == 200, await response.text()
                answer = json.loads(await response.text())
            assert TASKS[task].check(TASKS[task].request.model_validate(body), answer) == []
            passes += int(response.headers["x-forward-passes"])
            tokens += int(response.headers["x-completion-tokens"])
            if tokens > 1000:
                break
    assert passes < tokens / 2
