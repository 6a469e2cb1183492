"""The drafter against the demo tokenizer, driven as the engine drives it."""

import itertools
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from vllm.config import VllmConfig

from dataset.generate import SOURCES
from serving.tasks.base import Task
from serving.tasks.registry import TASKS
from serving.vllm_plugin.drafter import Drafter, Drafts
from serving.vllm_plugin.follower import Follower, token_bytes
from serving.vllm_plugin.memory import Memory
from serving.vllm_plugin.patches.first import drafters

BASE = Path(__file__).parents[3] / "finetune" / "demo" / "base"
LIMIT = 48
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(BASE)
    return loaded


@pytest.fixture(scope="module")
def drafts(tokenizer: PreTrainedTokenizerBase) -> Drafts:
    return Drafts(tokenizer, LIMIT)


def passes(drafts: Drafts, prompt: list[int], answer: list[int]) -> int:
    """Forward passes that ``answer`` takes, the first with the prompt."""
    done, count = 0, 0
    draft = drafts.first(np.array(prompt, dtype=np.int32))
    while done < len(answer):
        assert len(draft) <= LIMIT
        kept = 0
        while kept < len(draft) and draft[kept : kept + 1] == answer[done + kept : done + kept + 1]:
            kept += 1
        new = min(kept + 1, len(answer) - done)
        done, count = done + new, count + 1
        draft = drafts.draft(np.array(prompt + answer[:done], dtype=np.int32), new)
    return count


@each_task
def test_all_forced_tokens_are_proposed_and_no_others(
    task: Task[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Without memory: one pass a decision, and every proposed token is what the text has."""
    table = token_bytes(tokenizer)
    for output in task.outputs():
        follower = Follower(output, tokenizer, table)
        for seed in range(20):
            values = output.sample(random.Random(seed))
            ids = tokenizer.encode(output.decided(values), add_special_tokens=False)
            ids = [*ids, tokenizer.eos_token_id]
            node, done, count = follower.start(output.head), 0, 0
            while done < len(ids):
                draft = list(follower.draft(node)) if done else []
                assert draft == ids[done : done + len(draft)]
                new = ids[done : done + len(draft) + 1]
                node, done, count = follower.after(node, new), done + len(new), count + 1
            assert count <= 1.1 * (len(output.decisions) + 1)


@each_task
def test_answers_that_were_seen_before_take_fewer_passes_than_decisions(
    task: Task[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    drafts = Drafts(tokenizer, LIMIT)
    source = SOURCES[task.name]
    counts = []
    for request in itertools.islice(source.requests(3), 1200):
        output = task.question(request).output
        prompt = tokenizer.encode(task.question(request).prefilled)
        text = output.decided(source.coach(request))
        answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        counts.append(passes(drafts, prompt, answer))
    later = counts[600:]
    assert sum(later) / len(later) < 0.75 * (len(TASKS[task.name].outputs()[0].decisions))


@each_task
def test_an_answer_that_is_known_takes_a_pass_for_each_draft(
    task: Task[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """The first has one, too: an answer shorter than a draft takes one pass in all."""
    drafts = Drafts(tokenizer, LIMIT)
    request = task.examples[0]
    prompt = tokenizer.encode(task.question(request).prefilled)
    text = task.question(request).output.decided(SOURCES[task.name].coach(request))
    answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    before = passes(drafts, prompt, answer)
    assert passes(drafts, prompt, answer) == -(-len(answer) // (LIMIT + 1)) < before


def test_a_prompt_that_is_none_of_ours_has_no_draft(
    drafts: Drafts, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert drafts.first(np.array(tokenizer.encode("hello"), dtype=np.int32)) == []


@each_task
def test_what_is_counted_adds_up(task: Task[Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Every token is forced or chosen, and comes from a pass or from an accepted draft."""
    drafts = Drafts(tokenizer, LIMIT)
    output = task.question(task.examples[0]).output
    prompt = tokenizer.encode(task.question(task.examples[0]).prefilled)
    steps = tokens = 0
    for seed in range(20):
        text = output.decided(output.sample(random.Random(seed)))
        answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        steps += passes(drafts, prompt, answer)
        tokens += len(answer)
    counts = drafts.counts[task.name]
    assert counts.requests == 20
    assert counts.passes == steps
    assert counts.forced + counts.chosen == tokens == counts.passes + counts.accepted
    assert counts.chosen > 20 * 3
    assert counts.forced > counts.chosen / 2
    assert counts.drafted >= counts.accepted


@given(junk=st.lists(st.integers(-5, 1100), min_size=1, max_size=60), new=st.integers(1, 60))
def test_tokens_of_no_answer_of_ours_get_no_draft_and_raise_nothing(
    junk: list[int], new: int, drafts: Drafts
) -> None:
    assert drafts.draft(np.array(junk, dtype=np.int32), min(new, len(junk))) == []


@each_task
def test_an_answer_that_leaves_the_language_gets_no_draft(
    task: Task[Any], drafts: Drafts, tokenizer: PreTrainedTokenizerBase
) -> None:
    request = task.examples[0]
    prompt = tokenizer.encode(task.question(request).prefilled + "??")
    tokens = np.array(prompt, dtype=np.int32)
    assert drafts.draft(tokens, 1) == []
    assert drafts.draft(np.append(tokens, tokens[-1]), 1) == []


def test_experience_out_of_range_in_a_prompt_builds_nothing(
    drafts: Drafts, tokenizer: PreTrainedTokenizerBase
) -> None:
    task = TASKS["month"]
    text = task.question(task.examples[0]).prompt.replace("**운동경험**: 1", "**운동경험**: 9")
    tokens = np.array(tokenizer.encode(text + '{"bench_press'), dtype=np.int32)
    assert drafts.draft(tokens, 1) == []


def test_token_bytes_spell_every_text(tokenizer: PreTrainedTokenizerBase) -> None:
    table = token_bytes(tokenizer)
    for task in TASKS.values():
        text = task.question(task.examples[0]).prompt + "힣 \U0001f3cb"
        assert b"".join(table.get(t, b"?") for t in tokenizer.encode(text)) == text.encode()
    assert tokenizer.eos_token_id not in table


@each_task
def test_a_run_that_is_cut_goes_on_in_the_same_tokens(
    task: Task[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Drafts shorter than what is forced: each next one takes up where the last ended."""
    short = Drafts(tokenizer, 3, remembered=0)
    request = task.examples[0]
    output = task.question(request).output
    prompt = tokenizer.encode(task.question(request).prefilled)
    for seed in range(5):
        text = output.decided(output.sample(random.Random(seed)))
        answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        for done in range(1, len(answer)):
            tokens = np.array(prompt + answer[:done], dtype=np.int32)
            draft = short.draft(tokens, 1)
            assert draft == answer[done : done + len(draft)]


@each_task
def test_without_memory_earlier_answers_make_no_difference(
    task: Task[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    forgetful = Drafts(tokenizer, LIMIT, remembered=0)
    request = task.examples[0]
    output = task.question(request).output
    prompt = tokenizer.encode(task.question(request).prefilled)
    text = output.decided(output.sample(random.Random(1)))
    answer = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    assert len({passes(forgetful, prompt, answer) for _ in range(3)}) == 1


def test_memory_forgets_the_oldest_and_learns_what_has_changed() -> None:
    memory = Memory(limit=2)
    for context, token in ((1, 0), (2, 7), (3, 8)):
        memory.count(context, token)
    assert [memory.chosen(context) for context in (1, 2, 3)] == [None, 7, 8]
    for _ in range(10):
        memory.count(2, 7)
    changed = []
    for _ in range(4):
        memory.count(2, 5)
        changed.append(memory.chosen(2))
    assert changed == [7, 7, 5, 5]


def counted(drafter: Drafter, name: str, labels: dict[str, str] | None = None) -> float:
    value = drafter.metrics.registry.get_sample_value(f"routine_drafter_{name}_total", labels)
    assert value is not None
    return value


class Config:
    """What the drafter reads of vLLM's configuration."""

    class speculative_config:
        num_speculative_tokens = LIMIT

    class model_config:
        max_model_len = 2048
        tokenizer = str(BASE)


@pytest.mark.parametrize(
    ("sampled", "lengths", "tokens"),
    [
        ([[5]], np.array([3], dtype=np.int64), np.zeros((1, 8), dtype=np.int32)),
        ([[5]], np.array([3], dtype=np.int32), np.zeros(8, dtype=np.int32)),
        ([5], np.array([3], dtype=np.int32), np.zeros((1, 8), dtype=np.int32)),
        ([[5], [6]], np.array([3], dtype=np.int32), np.zeros((2, 8), dtype=np.int32)),
        ([[5]], None, None),
    ],
)
def test_arguments_of_another_shape_are_counted_and_leave_plain_decoding(
    sampled: Any, lengths: Any, tokens: Any, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = Drafter(cast(VllmConfig, Config))
    drafter.load_model()
    assert drafter.propose(sampled, lengths, tokens) == [[] for _ in sampled]
    assert counted(drafter, "failures") == 1
    assert "the drafter failed, 1 times" in caplog.text


def test_a_failure_before_the_first_token_is_counted_and_leaves_plain_decoding(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = Drafter(cast(VllmConfig, Config))
    drafter.load_model()
    assert drafter in drafters
    monkeypatch.setattr(Drafts, "first", lambda *_: 1 / 0)
    assert drafter.first([1, 2]) == []
    assert counted(drafter, "failures") == 1
    assert "ZeroDivisionError" in caplog.text


def test_vllm_s_arguments_are_answered_row_by_row(tokenizer: PreTrainedTokenizerBase) -> None:
    """A batch of two: one in the middle of its prefill, one that has just sampled."""
    drafter = Drafter(cast(VllmConfig, Config))
    drafter.load_model()
    task = TASKS["rate"]
    prompt = tokenizer.encode(task.question(task.examples[0]).prefilled)
    row = [*prompt, *tokenizer.encode("60", add_special_tokens=False)]
    tokens = np.zeros((4, 2048), dtype=np.int32)
    tokens[1, : len(row)] = row
    lengths = np.array([64, len(row), 0, 0], dtype=np.int32)
    first, second = drafter.propose([[], row[len(prompt) :]], lengths, tokens)
    assert first == [] and tokenizer.decode(second) == ',"increase_rate_week":'
    lengths[1] = 2048
    assert drafter.propose([[], [1]], lengths, tokens) == [[], []]
    assert counted(drafter, "failures") == 0
    assert counted(drafter, "seconds") > 0
    of_rate = {"task": "rate"}
    assert counted(drafter, "requests", of_rate) == counted(drafter, "passes", of_rate) == 1
    assert counted(drafter, "tokens", {**of_rate, "kind": "chosen"}) == len(row) - len(prompt)
    assert counted(drafter, "drafted_tokens", of_rate) == len(second)
    assert counted(drafter, "passes", {"task": "month"}) == 0
