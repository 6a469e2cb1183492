"""Locust users that read what they are answered; ``python -m loadtests.load`` starts them.

A request is good if it was answered in time and an oracle that shares no code with the service
finds the answer right. Good requests a second are the goodput. Clients do as they are told: on 429
and 503 they wait as long as ``retry-after`` says, and ask again.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.pool import Group
from locust import FastHttpUser, LoadTestShape, events, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.event import EventHook
from locust.runners import WorkerRunner

from loadtests.drawn import drawn
from loadtests.plan import COUNTS_FILE, stored
from serving.contract.month import MonthRequest, profile_behind
from serving.contract.tasks import TASKS
from tests.oracle import faults
from tests.oracle_month import month_faults

PLAN = stored()
ATTEMPTS = 4
LEAVE_SECONDS = 0.05
"""Whoever leaves does so within this time."""
COMPLETION_TOKENS = 24
JSON = {"content-type": "application/json"}

counts: Counter[str] = Counter()
"""By ``stage|kind|what``: outcomes (good, late, wrong, failed, left, broke, which is an error of
this file), requests that were told to wait, tokens, and answer times in whole milliseconds (``ms
12``)."""
tokens = EventHook()
"""Fired with ``kind`` and ``number``: tokens that an answer's usage tells."""
_started = time.monotonic()
_numbers = count()


def note(kind: str, what: str, number: int = 1) -> None:
    """Count ``what`` in the stage that runs now."""
    stage = min(PLAN.stage(time.monotonic() - _started), len(PLAN.stages) - 1)
    counts[f"{stage}|{kind}|{what}"] += number


@tokens.add_listener
def count_tokens(kind: str, number: int) -> None:
    note(kind, "tokens", number)


class Asker(FastHttpUser):
    """Asks one kind of question. In a closed loop a user is a client that waits for its answer; in
    an open loop each user adds one arrival a second on average."""

    abstract = True
    kind: str
    is_stream = False
    concurrency = 1000
    connection_timeout = network_timeout = 60.0

    def on_start(self) -> None:
        self.chance = Random(f"{PLAN.seed} {os.getpid()} {next(_numbers)}")
        self.under_way = Group()

    def on_stop(self) -> None:
        self.under_way.join(timeout=PLAN.deadline_seconds)

    @task
    def arrive(self) -> None:
        if PLAN.is_open:
            self.under_way.spawn(self.ask)
            gevent.sleep(self.chance.expovariate(1.0))
        else:
            self.ask()

    def ask(self) -> None:
        """One request to its end; an error of this file itself is counted, and Locust tells it."""
        try:
            self.ask_and_count()
        except Exception:
            note(self.kind, "broke")
            raise

    def ask_and_count(self) -> None:
        """One request to its end, and what became of it."""
        asked = drawn(self.chance)
        if self.chance.random() < PLAN.leave:
            self.leave(asked)
            return
        start = time.perf_counter()
        outcome = "failed"
        for _ in range(ATTEMPTS):
            outcome, wait = self.attempt(asked)
            if not wait:
                break
            note(self.kind, "told to wait")
            gevent.sleep(wait)
        seconds = time.perf_counter() - start
        if outcome == "good" and seconds > PLAN.deadline_seconds:
            outcome = "late"
        note(self.kind, outcome)
        if outcome != "failed":
            note(self.kind, f"ms {round(seconds * 1000)}")

    def body(self, asked: MonthRequest) -> tuple[str, str]:
        """Path and body of a request."""
        raise NotImplementedError

    def read(self, response: ResponseContextManager) -> bytes:
        """All of an answer."""
        content: bytes = response.content
        return content

    def is_right(self, asked: MonthRequest, answer: bytes) -> bool:
        """Whether ``answer`` is right; may raise if it is no answer at all."""
        raise NotImplementedError

    def judge(self, asked: MonthRequest, answer: bytes) -> bool:
        """``is_right``; what is no answer is wrong."""
        try:
            return self.is_right(asked, answer)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return False

    def attempt(self, asked: MonthRequest) -> tuple[str, float]:
        """The outcome of asking once, and the seconds to wait before asking again, or 0."""
        path, body = self.body(asked)
        with self.client.post(
            path, data=body, headers=JSON, stream=self.is_stream, catch_response=True
        ) as response:
            if response.status_code in (429, 503) and response.headers.get("retry-after"):
                response.request_meta["name"] = f"{path}: told to wait"
                response.success()
                return "failed", float(response.headers["retry-after"])
            if response.status_code != 200:
                return "failed", 0
            if not self.judge(asked, self.read(response)):
                response.failure("the answer is wrong")
                return "wrong", 0
        return "good", 0

    def leave(self, asked: MonthRequest) -> None:
        """Ask, and disconnect before the answer."""
        url = urlsplit(str(self.host))
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        path, body = self.body(asked)
        try:
            connection.request("POST", path, body.encode(), JSON)
            gevent.sleep(self.chance.uniform(0, LEAVE_SECONDS))
        except OSError:
            note(self.kind, "failed")
        else:
            note(self.kind, "left")
        finally:
            connection.close()


class RateUser(Asker):
    """Task 1."""

    kind, weight, abstract = "rate", PLAN.mix.get("rate", 0), not PLAN.mix.get("rate")

    def body(self, asked: MonthRequest) -> tuple[str, str]:
        return "/gen/routine/rate", profile_behind(asked).model_dump_json()

    def is_right(self, asked: MonthRequest, answer: bytes) -> bool:
        return not faults(json.loads(answer))


class MonthUser(Asker):
    """Task 2, with the rates given."""

    kind, weight, abstract = "month", PLAN.mix.get("month", 0), not PLAN.mix.get("month")

    def body(self, asked: MonthRequest) -> tuple[str, str]:
        return "/gen/routine/month", asked.model_dump_json()

    def is_right(self, asked: MonthRequest, answer: bytes) -> bool:
        return not month_faults(asked.model_dump(), json.loads(answer))


class CompletionsUser(Asker):
    """Streaming completions of any adapter; the time to the first token is an entry of its own."""

    kind, weight = "completions", PLAN.mix.get("completions", 0)
    abstract, is_stream = not weight, True

    def body(self, asked: MonthRequest) -> tuple[str, str]:
        (model,) = self.chance.choices(list(PLAN.adapters), list(PLAN.adapters.values()))
        asks: dict[str, Any] = {
            "model": model,
            "prompt": TASKS["rate"].prompt(profile_behind(asked)),
            "max_tokens": COMPLETION_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return "/v1/completions", json.dumps(asks)

    def read(self, response: ResponseContextManager) -> bytes:
        seen = response.request_meta
        chunks = response.iter_content(chunk_size=1, decode_content=False)
        text = next(chunks, b"")
        first = (time.time() - seen["start_time"]) * 1000
        note(self.kind, f"first token ms {round(first)}")
        entry = {"request_type": "POST", "name": f"{seen['name']}: first token", "context": {}}
        self.environment.events.request.fire(
            **entry, response_time=first, response_length=0, exception=None
        )
        text += b"".join(chunks)
        seen["response_time"] = (time.time() - seen["start_time"]) * 1000
        seen["response_length"] = len(text)
        return text

    def is_right(self, asked: MonthRequest, answer: bytes) -> bool:
        parts = [line[6:] for line in answer.splitlines() if line.startswith(b"data: ")]
        if len(parts) < 2 or parts[-1] != b"[DONE]":
            return False
        usage = json.loads(parts[-2]).get("usage") or {}
        number: int = usage.get("completion_tokens", 0)
        tokens.fire(kind=self.kind, number=number)
        return number > 0


if PLAN.shape:

    class Shape(LoadTestShape):
        """The plan's shape."""

        def tick(self) -> tuple[int, float] | None:
            number = PLAN.stage(self.get_run_time())
            if number == len(PLAN.stages):
                return None
            users = max(1, round(PLAN.level * PLAN.stages[number].load))
            return users, float(PLAN.level)


@events.test_start.add_listener
def begin(**_: Any) -> None:
    global _started  # noqa: PLW0603
    _started = time.monotonic()


@events.report_to_master.add_listener
def send(client_id: str, data: dict[str, Any], **_: Any) -> None:
    data["routine"] = dict(counts)
    counts.clear()


@events.worker_report.add_listener
def receive(client_id: str, data: dict[str, Any], **_: Any) -> None:
    counts.update(data.get("routine", {}))


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        Path(os.environ[COUNTS_FILE]).write_text(json.dumps(counts), encoding="utf-8")
        environment.process_exit_code = 0  # whether it is a failure, the starting command says
