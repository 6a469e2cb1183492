"""What was trained is what is served, token for token, with the demo model's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from serving.contract.tasks import TASKS, Task

DEMO = Path(__file__).parents[2] / "finetune" / "demo"
ENGINE_MAX_TOKENS = 2048


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(DEMO / "base")
    return loaded


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
