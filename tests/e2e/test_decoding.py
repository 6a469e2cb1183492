"""Drafts and derived text change the speed of an answer and not a byte of it."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from dataset.generate import SOURCES
from loadtests.bench.measure import difference, engine_counters
from serving.tasks.base import Task
from serving.tasks.registry import TASKS
from tests.kit.asking import ask_all
from tests.kit.oracle import faults
from tests.kit.stack import ENGINE_KEY, Stack

UNSEEN_SEED = 44
FEW_AND_ALL = [100, pytest.param(1000, marks=pytest.mark.slow)]
"""Plain decoding of a thousand whole answers takes minutes."""
SAMPLING: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 5, "temperature": 0.5},
    {"top_p": 0.9},
    {"top_k": 5, "top_p": 0.5},
    {"temperature": 0.0, "logprobs": 2},
    {"repetition_penalty": 1.2, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"n": 2, "seed": 1},
    {"min_tokens": 3},
    {"max_tokens": 1, "top_k": 1},
    {"echo": True},
    {"allowed_token_ids": [3, 4, 5], "top_k": 2},
    {"structured_outputs": {"choice": ["1", "2"]}, "top_k": 1},
    {"min_p": 0.1},
    {"logit_bias": {"3": 5.0}},
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose engine decodes token by token."""
    log = tmp_path_factory.mktemp("plain") / "serve.log"
    running = Stack.start(log, ENGINE_DRAFTER="off")
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()


async def decoded(engine_url: str, asked: list[Any], task: Task[Any]) -> list[str]:
    """The answers that an engine's texts make, each decoded whole, under the whole constraint."""
    async with AsyncOpenAI(base_url=f"{engine_url}/v1", api_key=ENGINE_KEY, timeout=600) as client:

        async def answer(request: Any) -> str:
            question = task.question(request)
            regex = {"structured_outputs": {"regex": question.output.regex}}
            written = await client.completions.create(
                model=task.name,
                prompt=question.prompt,
                max_tokens=1536,
                temperature=0,
                extra_body=regex,
            )
            return task.render(request, question.output.parse(written.choices[0].text))

        return await asyncio.gather(*map(answer, asked))


def requests(task: str, number: int) -> list[Any]:
    return list(itertools.islice(SOURCES[task].requests(UNSEEN_SEED), number))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", FEW_AND_ALL)
@pytest.mark.parametrize("task", SOURCES)
async def test_answers_are_byte_for_byte_those_of_plain_decoding(
    task: str, number: int, stack: Stack, plain: Stack
) -> None:
    asked = requests(task, number)
    # Two services on one small machine: one may find no time to open a connection, and says so.
    ours = await ask_all(stack.url, asked, 32, retries=3)
    theirs = await decoded(plain.engine_url, asked, TASKS[task])
    assert sum(one == other for one, other in zip(ours, theirs, strict=True)) == number


@pytest.mark.parametrize(
    ("task", "most_passes", "accepted"), [("rate", 2, 0.5), ("month", 16, 0.5)]
)
async def test_fewer_passes_than_decisions_once_some_were_answered(
    task: str, most_passes: float, accepted: float, stack: Stack
) -> None:
    """The first included, in which the prompt is read."""
    asked = requests(task, 400)
    await ask_all(stack.url, asked[:300], 8)
    stack.wait_ready()  # or the gateway, proving an engine that was busy, asks it more than we do
    before = await engine_counters(stack.engine_url)
    await ask_all(stack.url, asked[300:], 1)
    counted = difference(await engine_counters(stack.engine_url), before)
    finished = counted["vllm:request_success_total"]
    passes = counted["routine_drafter_passes_total"] / finished
    assert finished == counted["routine_drafter_requests_total"] == 100
    assert passes < most_passes
    assert (
        counted["vllm:spec_decode_num_accepted_tokens_total"]
        > accepted * (counted["vllm:spec_decode_num_draft_tokens_total"])
    )


async def test_biases_hold_beside_requests_with_drafts(stack: Stack) -> None:
    """vLLM refuses both where it speculates; requests that have one are not drafted for. The prompt
    is one that would be."""
    asked = requests("rate", 60)
    prompt = TASKS["rate"].question(asked[0]).prefilled
    async with aiohttp.ClientSession(stack.url) as session:

        async def complete(**fields: Any) -> list[int]:
            body = {"model": "rate", "prompt": prompt, "max_tokens": 8, "ignore_eos": True}
            body |= {"return_token_ids": True, **fields}
            async with session.post("/v1/completions", json=body) as response:
                assert response.status == 200, await response.text()
                ids: list[int] = (await response.json())["choices"][0]["token_ids"]
                return ids

        greedy = await complete(temperature=0)
        beside = asyncio.create_task(ask_all(stack.url, asked, 8))
        for _ in range(5):
            without = await complete(temperature=0, logit_bias={str(greedy[0]): -100})
            assert greedy[0] not in without
            assert set(await complete(temperature=0, logit_bias={"300": 100})) == {300}
            # Nothing but the likeliest token is left.
            assert await complete(temperature=2.0, min_p=1.0, seed=5) == greedy
        answers = await beside
    assert [faults(json.loads(text)) for text in answers] == [[]] * len(answers)


def test_the_drafter_met_what_it_expects(stack: Stack) -> None:
    log = Path(stack.log).read_text(encoding="utf-8")
    assert "custom class-based proposer" in log
    assert "drafter failed" not in log


async def test_clients_that_sample_change_no_other_answer(stack: Stack) -> None:
    """Tasks are decoded greedily under a constraint; whoever completes a text of their own may
    sample. In one batch, with drafts for both, each keeps its own way."""
    asked = requests("rate", 60)
    task, stop = TASKS["rate"], asyncio.Event()
    body = {"model": "rate", "prompt": task.question(asked[0]).prompt, "max_tokens": 24, "seed": 1}
    async with aiohttp.ClientSession(stack.url) as session:

        async def complete(**sampling: float) -> str:
            async with session.post("/v1/completions", json=body | sampling) as response:
                answer = await response.json()
                assert response.status == 200, answer
                text: str = answer["choices"][0]["text"]
                return text

        async def sample() -> int:
            done = 0
            while not stop.is_set():
                await complete(temperature=1.0, top_p=0.9)
                done += 1
            return done

        alone = await ask_all(stack.url, asked, 8)
        greedy = await complete(temperature=0.0)
        samplers = [asyncio.create_task(sample()) for _ in range(4)]
        together = await ask_all(stack.url, asked, 8)
        assert await complete(temperature=1.0, top_k=1) == greedy
        stop.set()
        assert all(done > 0 for done in await asyncio.gather(*samplers))
    assert together == alone


async def test_an_idle_engine_survives_each_sampling_parameter(stack: Stack) -> None:
    """A request that comes alone is prefilled without drafts: vLLM failed there, for good."""
    prompt = TASKS["rate"].question(requests("rate", 1)[0]).prompt
    async with aiohttp.ClientSession(stack.url) as session:
        for sampling in SAMPLING:
            body = {"model": "rate", "prompt": prompt, "max_tokens": 8} | sampling
            async with session.post("/v1/completions", json=body) as response:
                assert response.status == 200, (sampling, await response.text())
