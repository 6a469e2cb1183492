"""Lines of batches stand still in the steps of tasks, and have short ones: on vLLM's scheduler."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from serving import limit
from serving.engine.settings import DEMO
from serving.gateway.engine import BATCH_PRIORITY, TASK_PRIORITY
from serving.limit import Limit
from serving.vllm_plugin.patches import priority
from serving.vllm_plugin.patches.priority import (
    MANY_TIMES,
    MOST_HELD,
    PATIENT,
    URGENT,
    Lines,
    schedule,
    update_from_output,
)

BLOCK, BLOCKS, PLACES = 16, 10_000, 8
PART, LONG = 64, 200
"""Tokens of a prompt that are read in a step, and of a long prompt."""


class Engine:
    """vLLM's scheduler, and a model that says 5 to everything.

    Args:
        monkeypatch: pytest's.
        most: lines of a step of lines alone; None if it is to be found.
        places: requests at once.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, most: int | None = None, places: int = PLACES
    ) -> None:
        self._now, self._number = 0.0, itertools.count()
        clock = SimpleNamespace(perf_counter=lambda: self._now, monotonic=lambda: self._now)
        for module in (priority, limit):
            monkeypatch.setattr(module, "time", clock)
        self.lines = Lines()
        if most is not None:
            self.lines.limit = Limit(most)
        monkeypatch.setattr(priority, "lines", self.lines)
        config = VllmConfig(
            model_config=ModelConfig(str(DEMO / "base"), skip_tokenizer_init=True, seed=0),
            cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=False),
            scheduler_config=SchedulerConfig(
                max_num_seqs=places, max_num_batched_tokens=2048, max_model_len=512,
                policy="priority", is_encoder_decoder=False, async_scheduling=False,
                long_prefill_token_threshold=PART,
            ),
        )  # fmt: skip
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        config.cache_config.num_gpu_blocks = BLOCKS
        caches = KVCacheConfig(
            num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["0"], spec)]
        )
        self.scheduler = Scheduler(
            config, caches, StructuredOutputManager(config), block_size=BLOCK
        )

    def ask(self, *priorities: int, tokens: int = 100, prompt: int = 3) -> None:
        """Send requests of ``tokens`` tokens to generate, after ``prompt`` tokens."""
        for each in priorities:
            params = SamplingParams(max_tokens=tokens, ignore_eos=True)
            name = f"{each} {next(self._number)}"
            self.scheduler.add_request(Request(name, [1] * prompt, params, None, priority=each))

    def step(self, seconds_each: float = 0.0, seconds: float = 1.0) -> list[int]:
        """Compute a step; return the priorities of those in it.

        Args:
            seconds_each: what each takes.
            seconds: what the step itself takes.
        """
        output = schedule(self.scheduler)
        names = list(output.num_scheduled_tokens)
        self._now += (seconds + seconds_each * len(names)) * bool(names)
        places = {name: place for place, name in enumerate(names)}
        update_from_output(
            self.scheduler, output, ModelRunnerOutput(names, places, [[5] for _ in names])
        )
        return sorted(int(name.split()[0]) for name in names)


def test_the_priorities_are_the_gateway_s() -> None:
    assert (URGENT, PATIENT) == (TASK_PRIORITY, BATCH_PRIORITY)


@pytest.mark.parametrize(
    ("running", "waiting", "step"),
    [
        ((1, 1), (), [1, 1]),
        ((1, 1, 1), (), [1, 1]),
        ((1, 1), (1, 1), [1, 1]),
        ((1,), (1, 1), [1, 1]),
        ((1, 1), (-1,), [-1]),
        ((1, 1), (-1, 0), [-1, 0]),
        ((1, 1), (-1, 1), [-1]),
        ((1, 1), (0,), [0, 1, 1]),  # what is passed through may last for minutes
        ((0, 0), (1, 1, 1), [0, 0, 1, 1]),
        ((-1, 0), (), [-1, 0]),
        ((-1,), (1, 1), [-1]),
        ((), (-1, 1), [-1]),
        ((1, 1), (-1,) * 20, [-1] * (PLACES - 2)),  # those who stand still keep their places
        ((1, 1), (0,) * 20, [0] * (PLACES - 2) + [1, 1]),
        ((0,) * PLACES, (1, 1), [0] * PLACES),
    ],
)
def test_lines_stand_still_in_the_steps_of_tasks(
    monkeypatch: pytest.MonkeyPatch, running: Any, waiting: Any, step: list[int]
) -> None:
    engine = Engine(monkeypatch, most=2)
    engine.ask(*running)
    engine.step()
    engine.ask(*waiting)
    assert engine.step() == step
    assert engine.scheduler.max_num_active_reqs == PLACES


def test_all_are_answered_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    engine.ask(*[1, 0, -1] * 30, tokens=3)
    for _ in range(1000):
        engine.step(0.1)
    assert not engine.scheduler.requests


def test_lines_get_on_beside_tasks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, most=1)
    engine.ask(1, -1)
    steps = [1 in engine.step() for _ in range(5 * (MOST_HELD + 1))]
    assert sum(steps) == 5


def test_an_error_in_vllm_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, most=2)
    engine.ask(1, 1)
    engine.step()
    engine.ask(-1)

    def fail(_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(priority, "vllm_schedule", fail)
        with pytest.raises(RuntimeError):
            engine.step()
    assert len(engine.scheduler.running) == 2
    assert engine.step() == [-1]


@pytest.mark.parametrize("seconds_each", [0.02, 0.5, 2.0, 9.0])
def test_steps_of_lines_alone_are_short(
    monkeypatch: pytest.MonkeyPatch, seconds_each: float
) -> None:
    """However long a line takes beside what the step itself takes, here a second."""
    engine = Engine(monkeypatch, places=1000)
    engine.ask(*[1] * 300, tokens=500)
    found = [len(engine.step(seconds_each)) for _ in range(400)][200:]
    most = ((1 + seconds_each) * MANY_TIMES - 1) / seconds_each
    assert 0.8 * min(most, 300) <= sum(found) / len(found) <= 1.05 * most


@pytest.mark.parametrize(
    ("priorities", "read"),
    [
        ((0,), PART),
        ((1,), PART),
        ((-1,), LONG),  # a task's own prompt is not long, and it waits for nobody
        ((0, 0), 2 * PART),
        ((0, 1), 2 * PART),
        ((-1, 0), 2 * PART),
    ],
)
def test_a_long_prompt_is_read_in_parts(
    monkeypatch: pytest.MonkeyPatch, priorities: tuple[int, ...], read: int
) -> None:
    """Those who come during a step wait for all of it."""
    engine = Engine(monkeypatch, most=1)
    engine.ask(*priorities, prompt=LONG)
    most = engine.scheduler.max_num_scheduled_tokens
    assert schedule(engine.scheduler).total_num_scheduled_tokens == read
    assert engine.scheduler.max_num_scheduled_tokens == most


def test_beside_tasks_one_prompt_is_read_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in as many steps as alone; those that are read go on with their answers."""
    engine = Engine(monkeypatch)
    engine.ask(0, 0, 0, prompt=LONG)
    assert engine.step() == [0, 0, 0]  # of their own, side by side
    engine.ask(-1)
    parts = -(-LONG // PART) - 1
    steps = [engine.step() for _ in range(3 * parts)]
    assert steps == [[-1, *[0] * (1 + step // parts)] for step in range(3 * parts)]
    assert engine.step() == [-1, 0, 0, 0]


def test_steps_with_others_say_nothing_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    engine.ask(0, *[1] * 8)
    for _ in range(20):
        engine.step(seconds=0.001)
    assert engine.lines.limit.least("lines") == 0
    assert engine.lines.limit.value == 1
