"""What was trained is what is served, token for token, with the demo model's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dataset.generate import rows
from finetune.data import encode_row
from finetune.recipe import Recipe
from serving.contract.lock import Lock
from serving.contract.tasks import TASKS, Task

FINETUNE = Path(__file__).parents[2] / "finetune"
DEMO = FINETUNE / "demo"
RECIPE = Recipe.load(FINETUNE / "recipes" / "demo-rate.yaml")
ENGINE_MAX_TOKENS = 2048


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(DEMO / "base")
    return loaded


def test_the_lock_file_has_the_scores_the_adapters_were_accepted_for() -> None:
    for name, entry in Lock.load(DEMO / "adapters").adapters.items():
        assert entry.scores, f"{name}: run `make evaluate`"
        assert entry.scores.profiles >= 1000
        assert entry.scores.with_adapter >= 0.97
        assert entry.scores.without_adapter <= 0.3


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 10**9))
def test_a_dataset_row_begins_with_the_tokens_that_the_gateway_sends(
    seed: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = next(rows("rate", "train", 1, seed))
    task = TASKS["rate"]
    request = task.request.model_validate(row["request"])
    trained = encode_row(row, 0, tokenizer, RECIPE)["input_ids"]
    sent = task.prompt(request) + task.output(request).head
    assert (row["prompt"] + row["completion"]).startswith(sent)
    served = tokenizer(sent)["input_ids"]
    assert trained[: len(served)] == served


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_served_prompt_is_a_token_prefix_of_the_training_text(
    task: Task, tokenizer: PreTrainedTokenizerBase
) -> None:
    for request in task.examples:
        output = task.output(request)
        served = tokenizer(task.prompt(request) + output.head)["input_ids"]
        for values in output.enumerate():
            trained = tokenizer(task.prompt(request) + output.text(values))["input_ids"]
            assert trained[: len(served)] == served
            assert len(trained) < ENGINE_MAX_TOKENS
            decided = tokenizer(output.decided(values))["input_ids"]
            assert trained[len(served) : len(served) + len(decided)] == decided
            assert len(decided) <= output.max_decided_bytes
