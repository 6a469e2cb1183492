"""Batches: many requests in one, a line each."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from starlette.testclient import TestClient

from serving.gateway.batch import MOST_BATCHES, MOST_BYTES, MOST_LINES
from serving.gateway.engine import BATCH_PRIORITY, TASK_PRIORITY
from serving.gateway.errors import EngineUnavailable
from serving.gateway.settings import GatewaySettings
from serving.limit import START
from serving.tasks.registry import TASKS
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine
from tests.unit.gateway.running import Running, running

JSON_LINES = "application/x-ndjson"
OWN, CHAT = "/gen/routine/rate", "/v1/chat/completions"


def path(task: str) -> str:
    return f"/gen/routine/{task}/batch"


def joined(lines: Sequence[Any]) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def ask(client: TestClient, lines: Sequence[Any], task: str = "rate") -> dict[str, Any]:
    """The responses to a batch, by custom id."""
    answer = client.post(path(task), content=joined(lines), headers={"content-type": JSON_LINES})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == JSON_LINES
    found = [json.loads(line) for line in answer.text.splitlines()]
    for one in found:
        assert set(one) == {"id", "custom_id", "response", "error"}
        assert set(one["response"]) == {"status_code", "request_id", "body"}
        assert one["error"] is None
    assert len({one["id"] for one in found}) == len(found)
    responses = {one["custom_id"]: one["response"] for one in found}
    assert len(responses) == len(found)
    return responses


def openai(body: Any, url: str = OWN, **fields: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body, **fields}


def chat(body: Any, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": json.dumps(body)}
    return openai({"model": "rate", "messages": [message], **fields}, CHAT)


@pytest.mark.parametrize("task", TASKS)
def test_each_line_has_the_answer_that_the_route_gives(client: TestClient, task: str) -> None:
    examples = [example.model_dump(mode="json") for example in TASKS[task].examples]
    answers = ask(client, examples * 20, task)
    assert set(answers) == {str(n) for n in range(1, 20 * len(examples) + 1)}
    for number, answer in answers.items():
        example = examples[(int(number) - 1) % len(examples)]
        assert answer["status_code"] == 200
        assert answer["body"] == client.post(f"/gen/routine/{task}", json=example).json()


def test_lines_of_openai_s_batch_files_are_understood(client: TestClient) -> None:
    lines = [openai(GOOD, custom_id="own"), {**chat(GOOD), "custom_id": "chat"}]
    answers = ask(client, lines)
    assert answers["own"]["body"] == client.post(OWN, json=GOOD).json()
    completion = client.post(CHAT, json=chat(GOOD)["body"]).json()
    for each in (completion, answers["chat"]["body"]):
        del each["id"], each["created"]
    assert answers["chat"]["body"] == completion


BAD: list[tuple[Any, int, str]] = [
    (b"{", 400, "the body is not JSON: EOF"),
    (b"\xff", 400, "the body is not JSON"),
    (b"[" * 10_000, 400, "the body is not JSON: recursion limit"),
    (b'{"experience": "\\ud800"}', 400, "the body is not JSON"),
    ([], 422, "the body cannot be an empty list; it must be an object with experience"),
    ({**GOOD, "experience": 9}, 422, "experience cannot be 9; it must be an integer from 1 to 5"),
    ({"experience": 1}, 422, "gender is missing"),
    (openai({**GOOD, "experience": 9}), 422, "body.experience cannot be 9; it must be an integer"),
    (openai(GOOD, "/v1/completions"), 422, f'url cannot be "/v1/completions"; it must be one of '
     f"{OWN}, {CHAT}"),
    (openai(GOOD, method="GET"), 422, 'method cannot be "GET"; it must be POST'),
    (openai(GOOD, custom_id=7), 422, "custom_id cannot be 7; it must be a text"),
    (openai(GOOD, priority=1), 422, "priority is not a known field; it must be an object with "
     "custom_id, method, url, body"),
    ({"body": GOOD}, 422, "custom_id is missing"),
    (chat({**GOOD, "experience": 9}), 422, "messages.0.content: experience cannot be 9"),
    (chat(GOOD, model="month"), 422, "body.model cannot be 'month'; this batch is of rate"),
    (chat(GOOD, stream=True), 422, "body.stream cannot be true in a batch"),
]  # fmt: skip


def test_a_bad_line_has_its_error_and_the_others_their_answers(client: TestClient) -> None:
    lines = [GOOD, *(line for line, _, _ in BAD), GOOD]
    for number, line in enumerate(lines):
        if isinstance(line, dict) and line.get("custom_id") == "a":
            lines[number] = line | {"custom_id": f"id{number}"}
    answers = ask(client, lines)
    assert len(answers) == len(lines)
    for number, (_, status, words) in enumerate(BAD, 1):
        answer = answers.get(str(number + 1)) or answers[f"id{number}"]
        assert answer["status_code"] == status
        assert answer["body"]["error"]["message"].startswith(words)
    assert {answers[n]["status_code"] for n in ("1", str(len(lines)))} == {200}


def test_blank_lines_crlf_and_a_mark_of_order_are_no_lines(client: TestClient) -> None:
    body = b"\xef\xbb\xbf" + joined([GOOD]) + b"\r\n\n  \n" + joined([GOOD]).replace(b"\n", b"\r\n")
    answer = client.post(path("rate"), content=body, headers={"content-type": "application/jsonl"})
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert {(one["custom_id"], one["response"]["status_code"]) for one in found} == {
        ("1", 200), ("5", 200),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"", {}, 422, "the body has no lines"),
        (b"\n \n", {}, 422, "the body has no lines"),
        (b"{}\n" * (MOST_LINES + 1), {}, 413, f"at most {MOST_LINES} lines; this has 10001"),
        (b"{}\n" * MOST_LINES + b"{}", {}, 413, "at most 10000 lines; this has 10001"),
        (b" " * (MOST_BYTES + 1), {}, 413, f"at most {MOST_BYTES} bytes"),
        (b"{}", {"content-type": "application/json"}, 415, "send application/x-ndjson or"),
        (b"{}", {"accept": "application/json"}, 406, "this route answers application/x-ndjson"),
        (b"{}", {"x-request-timeout-ms": "9"}, 422, "leave it out of a batch"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_whole(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = client.post(
        path("rate"), content=content, headers={"content-type": JSON_LINES, **headers}
    )
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_a_line_that_the_engine_loses_again_and_again_is_an_error(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.losses = [EngineUnavailable("down")] * 3
    assert ask(client, [GOOD])["1"]["status_code"] == 503
    answers = ask(client, [GOOD] * 5)
    assert [one["status_code"] for one in answers.values()] == [200] * 5


def test_lines_go_last_at_the_engine(client: TestClient, engine: FakeEngine) -> None:
    engine.calls.clear()
    client.post(OWN, json=GOOD)
    ask(client, [GOOD] * 3)
    assert [call.priority for call in engine.calls] == [TASK_PRIORITY, *[BATCH_PRIORITY] * 3]
    assert TASK_PRIORITY < 0 < BATCH_PRIORITY  # what is passed through has 0
    ids = [call.headers["x-request-id"] for call in engine.calls]
    assert len(set(ids)) == 4


async def lines_of(response: aiohttp.ClientResponse) -> list[Any]:
    return [json.loads(line) async for line in response.content]


class Started:
    """A batch that is under way, on an engine that holds what it is asked."""

    def __init__(self, found: Running, session: aiohttp.ClientSession) -> None:
        self.engine, self.session = found.engine, session
        self._gate = found.engine.gate = asyncio.Event()

    def open(self) -> None:
        """Let go what is held, and what comes."""
        self._gate.set()

    def batch(self, count: int) -> asyncio.Task[list[Any]]:
        async def asking() -> list[Any]:
            async with self.session.post(
                path("rate"), data=joined([GOOD] * count), headers={"content-type": JSON_LINES}
            ) as response:
                assert response.status == 200, await response.text()
                return await lines_of(response)

        return asyncio.create_task(asking())

    async def wait(self, number: int) -> None:
        """Until ``number`` lines are at the engine."""
        for _ in range(500):
            if await self.number() == number:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await self.number())

    async def number(self) -> float:
        """How many lines are at the engine."""
        name = 'routine_in_flight_requests{pool="batch"} '
        async with self.session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        (found,) = [line for line in lines if line.startswith(name)]
        return float(found.split()[-1])


async def test_lines_are_answered_as_they_finish(settings: GatewaySettings) -> None:
    async with running(settings) as (found, session):
        started = Started(found, session)
        async with session.post(
            path("rate"), data=joined([GOOD, b"[]"]), headers={"content-type": JSON_LINES}
        ) as response:
            first = json.loads(await response.content.readline())
            assert first["custom_id"] == "2"  # the first is still at the engine
            started.open()
            assert json.loads(await response.content.readline())["custom_id"] == "1"
        found.server.should_exit = True


async def test_a_client_that_leaves_takes_its_lines_from_the_engine(
    settings: GatewaySettings,
) -> None:
    async with running(settings) as (found, session):
        started = Started(found, session)
        batch = started.batch(100)
        await started.wait(START)
        batch.cancel()
        await started.wait(0)
        assert started.engine.finished == 0
        found.server.should_exit = True


async def test_more_batches_than_allowed_are_told_to_come_back(settings: GatewaySettings) -> None:
    async with running(settings) as (found, session):
        started = Started(found, session)
        batches = [started.batch(2) for _ in range(MOST_BATCHES)]
        await started.wait(2 * MOST_BATCHES)
        headers = {"content-type": JSON_LINES}
        async with session.post(path("rate"), data=b"{}", headers=headers) as response:
            assert response.status == 429
            assert int(response.headers["retry-after"]) > 0
            assert "4 batches are under way" in await response.text()
        started.open()
        assert [len(lines) for lines in await asyncio.gather(*batches)] == [2] * MOST_BATCHES
        async with session.post(path("rate"), data=b"{}", headers=headers) as response:
            assert response.status == 200
        found.server.should_exit = True


async def test_many_bad_lines_do_not_hold_up_others(settings: GatewaySettings) -> None:
    async with running(settings) as (found, session):
        started = Started(found, session)
        started.open()
        async with session.post(
            path("rate"), data=b"[]\n" * MOST_LINES, headers={"content-type": JSON_LINES}
        ) as response:
            answered = asyncio.create_task(lines_of(response))
            asked = 0
            while not answered.done():
                async with session.post(OWN, json=GOOD) as other:
                    assert other.status == 200
                asked += 1
            assert len(answered.result()) == MOST_LINES
        assert asked > 3
        found.server.should_exit = True
