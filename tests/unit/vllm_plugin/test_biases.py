"""Which requests of a batch are not drafted for: those with a bias or a least probability."""

from typing import Any, cast

import pytest
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdateBuilder, LogitsProcessors

from serving.vllm_plugin.patches import biases

ROWS = 4


class Scheduler:
    max_num_seqs = ROWS


class Config:
    """What the processors read."""

    scheduler_config = Scheduler()

    def __init__(self, speculative: object) -> None:
        self.speculative_config = speculative
        self.reasoning_config = None


@pytest.fixture(autouse=True)
def none_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biases, "_built", [])


def built(speculative: object = "a drafter") -> LogitsProcessors:
    config = cast(VllmConfig, Config(speculative))
    return biases.build(config, torch.device("cpu"), False, False)


def names(processors: LogitsProcessors) -> set[str]:
    return {type(processor).__name__ for processor in processors.all}


def added(*each: tuple[int, SamplingParams]) -> Any:
    update = BatchUpdateBuilder()
    update.reset()
    update.batch_changed = True
    for row, params in each:
        update.added.append((row, params, None, []))
    return update.get_and_reset(ROWS)


def test_speculation_leaves_out_no_processor() -> None:
    assert names(built()) == names(built(None))
    assert len(names(built())) == 3


def test_rows_with_a_bias_or_a_least_probability_are_not_drafted_for() -> None:
    assert biases.undrafted() == set()
    processors = built()
    assert biases.undrafted() == set()
    update = added(
        (0, SamplingParams()),
        (1, SamplingParams(logit_bias={3: -100.0})),
        (2, SamplingParams(min_p=0.5)),
        (3, SamplingParams(temperature=0.5, top_k=3)),
    )
    for processor in processors.all:
        processor.update_state(update)
    assert biases.undrafted() == {1, 2}
    update = added((1, SamplingParams()), (2, SamplingParams()))
    for processor in processors.all:
        processor.update_state(update)
    assert biases.undrafted() == set()
