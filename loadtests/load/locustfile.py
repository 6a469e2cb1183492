"""Locust users that check every answer: run ``make load`` while the service is running.

Wrong and late answers count as failures, so goodput is Locust's requests minus its failures.
Clients honor ``retry-after`` on 429 and 503. Locust's own options set users, run time, weights
(``--config-users``), processes and the web page.
"""

import argparse
import http.client
import json
import math
import os
import sys
import time
import urllib.request
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.runners import WorkerRunner

from serving.tasks.base import Task
from serving.tasks.registry import TASKS

LEAVE_SECONDS = 0.05
"""Clients that leave early disconnect within this time."""
COMPLETION_TOKENS = 24
HEADERS = {"content-type": "application/json"}
if "ROUTINE531_KEY" in os.environ:
    HEADERS["authorization"] = f"Bearer {os.environ['ROUTINE531_KEY']}"
WRONG = "wrong answer"


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


@events.init_command_line_parser.add_listener
def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that Locust lacks."""
    add = parser.add_argument
    add("--deadline", type=positive, default=2.0, help="seconds; a later answer is a failure")
    add("--leave", type=share, default=0.01, help="share of clients that leave before the answer")
    add("--arrivals", action="store_true", help="each user is one arrival a second, at random")
    add("--max-failed", type=share, default=0.05, help="share of requests; more end with code 1")
    add("--max-p95", type=positive, default=math.inf, help="ms, of any kind; more end with code 1")


class Client(FastHttpUser):
    """Sends one kind of request, one after another. With ``--arrivals`` it is an open loop: each
    user adds one arrival per second, whether or not earlier requests were answered."""

    abstract = True
    host = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    concurrency = 1000
    connection_timeout = network_timeout = 60.0

    def on_start(self) -> None:
        self.rng, self.under_way = Random(), Group()
        self.options = self.environment.parsed_options

    def on_stop(self) -> None:
        self.under_way.join(timeout=self.options.deadline)

    @task
    def arrive(self) -> None:
        if self.options.arrivals:
            self.under_way.spawn(self.ask)
            gevent.sleep(self.rng.expovariate(1.0))
        else:
            self.ask()

    def ask(self) -> None:
        """Send one request and record its result."""
        path, asked, body = self.request()
        if self.rng.random() < self.options.leave:
            self.leave(path, body)
            return
        wait = 0.0
        with self.client.post(
            path, data=body, headers=HEADERS, stream=True, catch_response=True
        ) as response:
            start = response.request_meta["start_time"]
            text = self.read(response)
            seconds = time.time() - start
            response.request_meta["response_time"] = 1000 * seconds
            response.request_meta["response_length"] = len(text)
            if response.status_code != 200:
                wait = float(response.headers.get("retry-after") or 0)
                response.failure(f"status {response.status_code}")
            elif not self.judge(asked, text):
                response.failure(WRONG)
            elif seconds > self.options.deadline:
                response.failure("late")
            else:
                response.success()
        gevent.sleep(wait)

    def request(self) -> tuple[str, Any, str]:
        """Return the path, the request and its serialized body."""
        raise NotImplementedError

    def is_right(self, asked: Any, answer: bytes) -> bool:
        """Check whether ``answer`` is correct; may raise if it is malformed."""
        raise NotImplementedError

    def judge(self, asked: Any, answer: bytes) -> bool:
        """Call ``is_right``; treat a malformed answer as wrong."""
        try:
            return self.is_right(asked, answer)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return False

    def read(self, response: ResponseContextManager) -> bytes:
        """Read the whole answer."""
        return b"".join(response.iter_content(chunk_size=65536, decode_content=False))

    def leave(self, path: str, body: str) -> None:
        """Send a request and disconnect before the answer."""
        url = urlsplit(str(self.host))
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        try:
            connection.request("POST", path, body.encode(), HEADERS)
            gevent.sleep(self.rng.uniform(0, LEAVE_SECONDS))
        except OSError:
            pass  # the answer is not needed
        finally:
            connection.close()


class TaskClient(Client):
    """Sends requests to a task's route."""

    abstract = True
    routine: Task[Any]

    def request(self) -> tuple[str, Any, str]:
        asked = self.routine.draw(self.rng)
        return f"/gen/routine/{self.routine.name}", asked, asked.model_dump_json()

    def is_right(self, asked: Any, answer: bytes) -> bool:
        return not self.routine.check(asked, json.loads(answer))


for routine in TASKS.values():
    name = f"{routine.name.title()}Client"
    globals()[name] = type(name, (TaskClient,), {"routine": routine, "weight": 4})


class CompletionsClient(Client):
    """Streams completions from any adapter; time to first token is reported as its own entry."""

    weight = 2

    def request(self) -> tuple[str, Any, str]:
        routine = self.rng.choice(list(TASKS.values()))
        asks = {
            "model": routine.name,
            "prompt": routine.question(routine.draw(self.rng)).prompt,
            "max_tokens": COMPLETION_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return "/v1/completions", asks, json.dumps(asks)

    def read(self, response: ResponseContextManager) -> bytes:
        chunks = response.iter_content(chunk_size=1, decode_content=False)
        text = next(chunks, b"")
        seen = response.request_meta
        self.environment.events.request.fire(
            request_type="first token",
            name=seen["name"],
            response_time=1000 * (time.time() - seen["start_time"]),
            response_length=0,
            exception=None,
            context={},
        )
        return text + b"".join(chunks)

    def is_right(self, asked: Any, answer: bytes) -> bool:
        parts = [line[6:] for line in answer.splitlines() if line.startswith(b"data: ")]
        usage = json.loads(parts[-2])["usage"]
        return parts[-1] == b"[DONE]" and 0 < usage["completion_tokens"] <= COMPLETION_TOKENS


@events.init.add_listener
def refuse_to_load_nobody(environment: Any, **_: Any) -> None:
    """Exit immediately if the service is not ready."""
    if isinstance(environment.runner, WorkerRunner) or not environment.parsed_options.headless:
        return
    url = str(environment.host or Client.host).rstrip("/")
    try:
        urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
    except (OSError, ValueError) as error:
        sys.stderr.write(
            f"load: no service is ready at {url} ({error}): start it with `make serve`\n"
        )
        sys.exit(2)


@events.quitting.add_listener
def judge_run(environment: Any, **_: Any) -> None:
    """Set exit code 1 if a limit was exceeded."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options, stats = environment.parsed_options, environment.stats
    asked = [entry for entry in stats.entries.values() if entry.method == "POST"]
    requests = sum(entry.num_requests for entry in asked)
    failed = sum(entry.num_failures for entry in asked)
    wrong = sum(e.occurrences for e in stats.errors.values() if WRONG in str(e.error))
    p95 = max((entry.get_response_time_percentile(0.95) for entry in asked), default=0)
    broken = {
        "no requests were sent": not requests,
        f"{wrong} answers were wrong": wrong,
        f"{failed} of {requests} requests failed": failed > options.max_failed * requests,
        f"p95 is {p95} ms": p95 > options.max_p95,
        "the load test itself failed (see above)": environment.runner.exceptions,
    }
    words = "; ".join(word for word, is_broken in broken.items() if is_broken)
    if words:
        sys.stderr.write(f"load: {words}\n")
    environment.process_exit_code = 1 if words else 0
