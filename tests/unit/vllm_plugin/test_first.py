"""Drafts that vLLM's scheduler is given with a prompt."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.metrics.stats import RequestSpecDecodeMetrics
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from serving.engine.settings import DEMO
from serving.vllm_plugin.patches import first
from serving.vllm_plugin.patches.priority import schedule, update_from_output

BLOCK, BLOCKS, LONGEST, PART, MOST = 16, 40, 128, 64, 96
"""Tokens of a block, blocks, tokens of the context, of a part of a prompt, of a step."""
DRAFT = list(range(100, 120))


class Engine:
    """vLLM's scheduler with a drafter that proposes ``DRAFT`` after every prompt."""

    def __init__(self) -> None:
        config = VllmConfig(
            model_config=ModelConfig(str(DEMO / "base"), skip_tokenizer_init=True, seed=0),
            cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=False),
            scheduler_config=SchedulerConfig(
                max_num_seqs=8, max_num_batched_tokens=MOST, max_model_len=LONGEST,
                policy="priority", is_encoder_decoder=False, async_scheduling=False,
                long_prefill_token_threshold=PART,
            ),
        )  # fmt: skip
        config.cache_config.num_gpu_blocks = BLOCKS
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        groups = [KVCacheGroupSpec(["0"], spec)]
        caches = KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=groups)
        manager = StructuredOutputManager(config)
        self.scheduler = Scheduler(config, caches, manager, block_size=BLOCK)
        self.scheduler.max_model_len, self.scheduler.num_spec_tokens = LONGEST, 48
        self.asked: list[int] = []

    def first(self, prompt: list[int]) -> list[int]:
        self.asked.append(len(prompt))
        return list(DRAFT)

    def ask(self, name: str, prompt: int = 10, **params: Any) -> Request:
        given = SamplingParams(max_tokens=60, ignore_eos=True, **params)
        request = Request(name, [1] * prompt, given, None, priority=-1)
        request.spec_decode_metrics = RequestSpecDecodeMetrics.new(48)
        self.scheduler.add_request(request)
        return request

    def step(self, says: Callable[[list[int]], list[int]]) -> SchedulerOutput:
        """Compute a step; ``says`` makes a request's tokens of its draft."""
        output = schedule(self.scheduler)
        names = list(output.num_scheduled_tokens)
        drafts = output.scheduled_spec_decode_tokens
        said = [says(drafts.get(name, [])) for name in names]
        places = {name: place for place, name in enumerate(names)}
        update_from_output(self.scheduler, output, ModelRunnerOutput(names, places, said))
        return output


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    first.drafters[:] = [made]
    yield made
    first.drafters.clear()


def half(draft: list[int]) -> list[int]:
    """Half of the draft is right, and then comes another token."""
    return [*draft[: len(draft) // 2], 7]


def test_a_prompt_s_pass_verifies_a_draft(engine: Engine) -> None:
    request = engine.ask("a")
    output = engine.step(half)
    assert output.scheduled_spec_decode_tokens == {"a": DRAFT}
    assert output.num_scheduled_tokens == {"a": 30}
    assert output.total_num_scheduled_tokens == 30
    (new,) = output.scheduled_new_reqs
    assert [len(ids) for ids in new.block_ids] == [2], "30 tokens take two blocks of 16"
    assert list(request.output_token_ids) == [*DRAFT[:10], 7]
    assert request.num_computed_tokens == 20, "the prompt, and what was right"
    metrics = request.spec_decode_metrics
    assert metrics is not None and sum(metrics.histogram) == 1
    following = engine.step(half)
    assert following.num_scheduled_tokens == {"a": 1}
    assert engine.asked == [10]


def test_requests_beside_it_are_untouched(engine: Engine) -> None:
    engine.ask("a")
    engine.step(half)
    engine.ask("b", prompt=20)
    output = engine.step(half)
    assert output.num_scheduled_tokens == {"a": 1, "b": 40}
    assert list(output.scheduled_spec_decode_tokens) == ["b"]


@pytest.mark.parametrize(
    "params", [{"logit_bias": {5: 1.0}}, {"min_p": 0.1}, {"prompt_logprobs": 1}]
)
def test_what_a_draft_would_change_has_none(params: dict[str, Any], engine: Engine) -> None:
    request = engine.ask("a", **params)
    output = engine.step(half)
    assert (output.num_scheduled_tokens, engine.asked) == ({"a": 10}, [])
    metrics = request.spec_decode_metrics
    assert metrics is not None and sum(metrics.histogram) == 1, "the pass counts all the same"


def test_a_prompt_that_is_read_in_parts_has_none(engine: Engine) -> None:
    engine.ask("other")
    engine.step(half)
    engine.ask("long", prompt=PART + 10)
    for _ in range(3):
        output = engine.step(lambda draft: [7])
        assert "long" not in output.scheduled_spec_decode_tokens
    assert engine.asked == [10]


def test_a_draft_ends_with_the_step_s_room(engine: Engine) -> None:
    engine.ask("a", prompt=50)
    engine.ask("b", prompt=40)
    output = engine.step(half)
    assert output.total_num_scheduled_tokens == MOST
    assert output.scheduled_spec_decode_tokens == {"a": DRAFT[:6]}


def test_a_draft_ends_with_the_context(engine: Engine) -> None:
    engine.scheduler.max_model_len = 60
    engine.ask("a", prompt=50)
    engine.step(half)
    assert engine.scheduler.requests["a"].num_tokens <= 60
    assert len(engine.step(half).scheduled_spec_decode_tokens.get("a", [])) == 0


def test_without_blocks_there_is_no_draft(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = engine.scheduler.kv_cache_manager
    allocate = blocks.allocate_slots

    def without(request: Request, number: int, **more: Any) -> Any:
        return None if number == len(DRAFT) else allocate(request, number, **more)

    monkeypatch.setattr(blocks, "allocate_slots", without)
    engine.ask("a")
    output = engine.step(half)
    assert (output.num_scheduled_tokens, output.scheduled_spec_decode_tokens) == ({"a": 10}, {})


def test_the_grammar_cuts_a_draft(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = engine.scheduler.structured_output_manager
    monkeypatch.setattr(manager, "validate_tokens", lambda _, tokens: tokens[:3])
    engine.ask("a")
    assert engine.step(half).scheduled_spec_decode_tokens == {"a": DRAFT[:3]}


def test_all_are_freed_in_the_end(engine: Engine) -> None:
    free = engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    for name in "abc":
        engine.ask(name)
    for _ in range(60):
        engine.step(half)
    assert not engine.scheduler.requests
    assert engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == free
