"""What was trained is what is served, token for token, with the demo model's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dataset.generate import rows
from dataset.sources import SOURCES, Source
from finetune.data import encode_row
from finetune.recipe import Recipe
from serving.contract.lock import Lock
from serving.contract.tasks import TASKS

FINETUNE = Path(__file__).parents[2] / "finetune"
DEMO = FINETUNE / "demo"
RECIPE = Recipe.load(FINETUNE / "recipes" / "demo-rate.yaml")
ENGINE_MAX_TOKENS = 2048


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(DEMO / "base")
    return loaded


BARS = {"rate": (0.97, 0.30), "month": (0.90, 0.20)}
"""By task: the least share of right parts with the adapter, and the most without."""


@pytest.mark.parametrize("name", TASKS)
def test_the_lock_file_has_the_scores_the_adapters_were_accepted_for(name: str) -> None:
    scores = Lock.load(DEMO / "adapters").adapters[name].scores
    assert scores, "run `make evaluate`"
    assert scores.requests >= 1000
    assert scores.valid == 1
    with_adapter, without_adapter = BARS[name]
    assert scores.with_adapter >= with_adapter
    assert scores.without_adapter <= without_adapter


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**9), form=st.booleans())
def test_what_the_gateway_sends_and_reads_is_what_was_trained_token_for_token(
    source: Source, seed: int, form: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = next(rows(source, "train", 1, seed, form))
    task = source.task
    request = task.request.model_validate_json(row["request"])
    output = task.output(request)
    values = output.parse(row["completion"])
    trained = encode_row(row, 0, tokenizer, RECIPE.model_copy(update={"tail_share": 1.0}))
    ids = trained["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    sent = task.prompt(request) + output.head
    assert (row["prompt"] + row["completion"]).startswith(sent)
    served, decided = tokenizer(sent)["input_ids"], tokenizer(output.decided(values))["input_ids"]
    assert ids[: len(served)] == served
    assert ids[len(served) : len(served) + len(decided)] == decided
    assert len(decided) < output.max_new_tokens
    assert len(served) + output.max_new_tokens < ENGINE_MAX_TOKENS


def test_every_combination_of_rates_follows_the_served_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = TASKS["rate"]
    for request in task.examples:
        output = task.output(request)
        served = tokenizer(task.prompt(request) + output.head)["input_ids"]
        for values in output.enumerate():
            trained = tokenizer(task.prompt(request) + output.text(values))["input_ids"]
            assert trained[: len(served)] == served
            assert len(trained) < ENGINE_MAX_TOKENS
