"""The main job on the real vLLM: profiles in, right progressions and months out."""

import asyncio
import io
import itertools
import json
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import openai
import pytest
from icalendar import Calendar
from pydantic import BaseModel

from dataset.coaches.month import coach_month
from dataset.coaches.rate import coach_rate
from dataset.generate import SOURCES, split_of
from dataset.profiles import ODD, USUAL, Mix, profiles
from loadtests.bench.measure import engine_counters
from serving.gateway.readiness import HOSTILE, QUIET_SECONDS
from serving.metrics import ENGINE_STEPS
from serving.tasks.month.answer import MonthRequest
from serving.tasks.profile import PUBLISHED, Profile
from serving.tasks.registry import TASKS
from tests.kit import asking
from tests.kit.asking import ask_text
from tests.kit.bad_requests import CASES, GOOD
from tests.kit.exposition import samples
from tests.kit.oracle import faults
from tests.kit.oracle_month import month_faults
from tests.kit.oracle_week import week_faults
from tests.kit.stack import Stack

RATE = "/gen/routine/rate"
UNSEEN_SEED = 20_260


async def ask(session: aiohttp.ClientSession, asked: BaseModel) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await ask_text(session, asked))
    return answer


async def ask_all(url: str, asked: Sequence[BaseModel], at_once: int) -> list[dict[str, Any]]:
    # Many at once on a small machine: the engine may find no time for a connection, and says so.
    return [json.loads(text) for text in await asking.ask_all(url, asked, at_once, retries=3)]


def without_rates(profile: Profile, days: int, **fields: Any) -> MonthRequest:
    return MonthRequest.model_validate(
        {**profile.model_dump(), "days_per_week": days, "rates": None, **fields}
    )


async def test_the_published_requests_are_answered_right(stack: Stack) -> None:
    for answer in await ask_all(stack.url, PUBLISHED, 1):
        assert faults(answer) == []


async def test_the_published_profiles_have_right_months_for_two_three_and_four_days(
    stack: Stack,
) -> None:
    asked = [without_rates(profile, days) for profile in PUBLISHED for days in (2, 3, 4)]
    answers = await ask_all(stack.url, asked, 1)
    for request, month in zip(asked, answers, strict=True):
        assert month_faults(request.model_dump(), month) == []
    rates = await ask_all(stack.url, PUBLISHED, 1)
    for number, month in enumerate(answers):
        assert month["rates"].items() <= rates[number // 3].items()


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mix", [USUAL, ODD], ids=["usual", "odd"])
async def test_random_months_are_right_and_days_are_as_the_coach_s(
    mix: Mix, number: int, stack: Stack
) -> None:
    unseen = (r for r in SOURCES["month"].requests(UNSEEN_SEED, mix) if _is_unseen(r))
    chance = random.Random(UNSEEN_SEED)
    asked = [
        request.model_copy(
            update={
                "basis": chance.choice(["1rm", "tm"]),
                "plate_step": chance.choice([0.25, 1.0, 1.25, 2.5, 5.0]),
                "rates": chance.choice([request.rates, None]),
            }
        )
        for request in itertools.islice(unseen, number)
    ]
    answers = await ask_all(stack.url, asked, 32)
    right = []
    for request, answer in zip(asked, answers, strict=True):
        assert month_faults(request.model_dump(), answer) == []
        assert week_faults(request.model_dump(), answer) == []
        complete = TASKS["month"].complete(request, answer["rates"])
        coached = json.loads(TASKS["month"].render(complete, coach_month(complete)))
        weeks = zip(answer["weeks"], coached["weeks"], strict=True)
        right += [day in week["days"] for week, other in weeks for day in other["days"]]
    assert sum(right) >= 0.98 * len(right)


def _is_unseen(request: Profile) -> bool:
    task = TASKS["month" if isinstance(request, MonthRequest) else "rate"]
    return split_of(task, request) == "test"


async def test_both_adapters_in_one_batch_answer_as_they_do_alone(stack: Stack) -> None:
    profiles_asked = list(itertools.islice(profiles(UNSEEN_SEED + 3), 16))
    months = list(itertools.islice(SOURCES["month"].requests(UNSEEN_SEED + 3), 16))
    asked = [one for pair in zip(profiles_asked, months, strict=True) for one in pair]
    alone = await ask_all(stack.url, asked, 1)
    together = await ask_all(stack.url, asked, len(asked))
    assert together == alone


async def test_a_month_leaves_as_a_table_and_as_a_calendar(stack: Stack) -> None:
    body = without_rates(PUBLISHED[0], 3).model_dump()
    async with aiohttp.ClientSession(stack.url) as session:
        texts = {}
        for accept in ("text/markdown", "text/calendar"):
            url = "/gen/routine/month?start=2026-12-07"
            async with session.post(url, json=body, headers={"accept": accept}) as response:
                assert response.status == 200
                assert response.content_type == accept
                texts[accept] = await response.text()
    assert texts["text/markdown"].count("일차") == 12
    assert len(list(Calendar.from_ical(texts["text/calendar"]).walk("VEVENT"))) == 12


@pytest.mark.parametrize("mix", [USUAL, ODD], ids=["usual", "odd"])
async def test_a_thousand_unseen_profiles_are_answered_right_and_as_the_coach_would(
    stack: Stack, mix: Mix
) -> None:
    asked = list(itertools.islice(filter(_is_unseen, profiles(UNSEEN_SEED, mix)), 1000))
    answers = await ask_all(stack.url, asked, 32)
    assert [found for found in map(faults, answers) if found] == []
    agree = [
        coach_rate(profile).items() <= answer.items()
        for profile, answer in zip(asked, answers, strict=True)
    ]
    assert sum(agree) >= 990


async def test_one_request_at_a_time_takes_under_a_second_at_the_median(stack: Stack) -> None:
    seconds = []
    async with aiohttp.ClientSession(stack.url) as session:
        for profile in itertools.islice(profiles(UNSEEN_SEED + 1), 15):
            start = time.perf_counter()
            await ask(session, profile)
            seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 1


def most_checks(start: float) -> float:
    """How often the gateway may have asked the engine for a sign of progress since ``start``."""
    return 1 + (time.monotonic() - start) / QUIET_SECONDS


async def test_the_passes_that_an_answer_tells_are_the_engine_s_steps(stack: Stack) -> None:
    told, start = 0, time.monotonic()
    before = await engine_counters(stack.engine_url)
    async with aiohttp.ClientSession(stack.url) as session:
        for profile in itertools.islice(profiles(UNSEEN_SEED + 3), 20):
            async with session.post(RATE, json=profile.model_dump()) as response:
                passes = int(response.headers["x-forward-passes"])
            assert 0 < passes < int(response.headers["x-completion-tokens"])
            told += passes
    after = await engine_counters(stack.engine_url)
    steps = after[ENGINE_STEPS] - before[ENGINE_STEPS]
    assert told <= steps <= told + most_checks(start)


async def test_base_and_adapter_together_answer_as_they_do_alone(stack: Stack) -> None:
    """vLLM 0.32 on CPU computes requests without adapter with the last slot's weights."""
    asked = itertools.islice(profiles(UNSEEN_SEED + 2), 12)
    prompts = [TASKS["rate"].question(profile).prompt for profile in asked]
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:

        async def complete(model: str, prompt: str) -> str:
            done = await client.completions.create(
                model=model, prompt=prompt, max_tokens=40, temperature=0
            )
            return done.choices[0].text

        pairs = [(model, prompt) for prompt in prompts for model in ("demo", "rate")]
        alone = [await complete(*pair) for pair in pairs]
        together = await asyncio.gather(*(complete(*pair) for pair in pairs))
    assert list(together) == alone
    assert alone[0::2] != alone[1::2]


async def test_the_same_request_id_twice_at_once_is_no_conflict(stack: Stack) -> None:
    async with aiohttp.ClientSession(stack.url, headers={"x-request-id": "same"}) as session:
        answers = await asyncio.gather(*(ask(session, PUBLISHED[0]) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)


async def test_the_constraint_bites_on_a_hostile_prompt(stack: Stack) -> None:
    output = TASKS["rate"].question(PUBLISHED[0]).output
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
        texts = []
        for extra in ({}, {"structured_outputs": {"regex": output.decided_regex}}):
            done = await client.completions.create(
                model="rate",
                prompt=HOSTILE,
                max_tokens=output.max_new_tokens,
                temperature=0,
                extra_body=extra,
            )
            texts.append(done.choices[0].text)
    assert output.read(texts[1])
    with pytest.raises(ValueError, match="not a complete"):
        output.read(texts[0])


def test_the_openai_client_works_unmodified(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["demo", "month", "rate"]
        arguments: dict[str, Any] = {
            "model": "rate",
            "prompt": TASKS["rate"].question(PUBLISHED[0]).prompt,
            "max_tokens": 120,  # more than a draft, or one pass may do
            "temperature": 0,
        }
        whole = client.completions.create(**arguments)
        assert whole.usage and whole.usage.completion_tokens == 120
        chunks = [c.choices[0].text for c in client.completions.create(**arguments, stream=True)]
        assert len(chunks) > 1
        assert "".join(chunks) == whole.choices[0].text
        with pytest.raises(openai.NotFoundError) as missing:
            client.completions.create(model="nobody", prompt="x")
        assert missing.value.code == "model_not_found"
        assert "demo, month, rate" in str(missing.value)
        assert client.models.retrieve("rate").id == "rate"
        regex = {"structured_outputs": {"regex": "[["}}
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refused:
                client.completions.create(model="rate", prompt="x", stream=stream, extra_body=regex)
            assert refused.value.status_code == 400
        content = PUBLISHED[0].model_dump_json()
        chat: dict[str, Any] = {
            "model": "rate", "messages": [{"role": "user", "content": content}]
        }  # fmt: skip
        said = client.chat.completions.create(**chat).choices[0].message.content
        assert said and faults(json.loads(said)) == []
        deltas = [
            c.choices[0].delta.content for c in client.chat.completions.create(**chat, stream=True)
        ]
        assert "".join(delta or "" for delta in deltas) == said
        again = client.completions.create(**arguments)
        assert again.usage and again.usage.prompt_tokens_details
        assert again.usage.prompt_tokens_details.cached_tokens
        with pytest.raises(openai.UnprocessableEntityError) as wrong:
            client.completions.create(model="rate", prompt="x", max_tokens=-1)
        assert wrong.value.param == "max_tokens"


async def test_bad_input_is_refused_and_the_engine_is_not_asked(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:

        async def engine_requests() -> float:
            return (await engine_counters(stack.engine_url))["vllm:request_success_total"]

        before, start = await engine_requests(), time.monotonic()
        assert before > 0
        for task, case in CASES:
            headers = {"content-type": case.content_type} if case.content_type else {}
            async with session.post(
                f"{stack.url}/gen/routine/{task}",
                data=io.BytesIO(case.body),
                headers=headers,
                skip_auto_headers=["content-type"],
            ) as response:
                assert response.status == case.status, case.name
                error = (await response.json())["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["param"] == case.param
        assert await engine_requests() - before <= most_checks(start) < len(CASES) / 10


async def test_metrics_saw_the_requests(stack: Stack) -> None:
    async with aiohttp.ClientSession(stack.url) as session:
        async with session.post(
            RATE, data=json.dumps(GOOD), headers={"content-type": "application/json"}
        ):
            pass
        async with session.get("/metrics") as response:
            found = samples(await response.text())
    labels = (("method", "POST"), ("route", RATE), ("status", "200"))
    assert found["routine_http_request_duration_seconds_count", labels] > 0
    assert found["routine_ready", ()] == 1
    violations = [
        value for (name, _), value in found.items() if name == "routine_semantic_violations_total"
    ]
    assert violations
    assert set(violations) == {0.0}
