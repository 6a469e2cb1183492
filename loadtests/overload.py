"""Ask a service for ten times what it can do, and for one task while another floods it:
``make overload``.

A service of its own on this machine. Load and service share its processor, so the clients are plain
connections without a library's comfort, and what they take of the processor is counted. Results go
to docs/reliability.md.
"""

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import psutil
import uvloop

from loadtests.arrivals import arrivals
from loadtests.report import RELIABILITY, markdown, percentile, save, setting, setting_line, show
from loadtests.service import own_ports, part, service
from serving.engine.settings import DEMO
from serving.tasks.registry import TASKS

CLOSED, CLOSED_SECONDS = (64, 128), 8
"""Clients that ask one thing after the other: the most answered per second is what the service can
do; the mean of before and after."""
TIMES = 10
"""Overload, in multiples of that."""
OBEDIENT = 3
"""Clients that come back when Retry-After says so, beside the overload."""
FLOOD = 256
"""Clients of one task in a flood."""
SHARE = 0.5
"""Load of the other task in a flood, of what the service can do: its fair share."""
ROUNDS = 3
"""Overloads with each task; the one with the median goodput counts, because machines change their
pace."""
WARM_UP_SECONDS = 4
LEAST = 0.9
"""Least goodput under overload, of what the service can do with the processor time that the load
leaves, and in a flood, of what was asked."""
PROMPT_SECONDS = 0.05
"""Longest that a refusal may take, at the median."""
DEADLINE_SECONDS = 30
"""The route's own deadline (GATEWAY_TASK_TIMEOUT_SECONDS)."""


@dataclass
class Reply:
    """A response."""

    status: int = 0
    """0 if the connection was lost."""
    retry_after: float = 0.0
    """Seconds."""
    seconds: float = 0.0
    """From sending to the last byte."""
    at: float = 0.0
    """When it was complete, on the monotonic clock."""


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    _transport: asyncio.Transport
    _answered: asyncio.Future[Reply]
    _reply: Reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Send a request; the future fails with ConnectionError if the connection is lost."""
        self._answered = asyncio.get_running_loop().create_future()
        self._parser, self._reply = httptools.HttpResponseParser(self), Reply()
        self._start = time.monotonic()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"retry-after":
            self._reply.retry_after = float(value)

    def on_message_complete(self) -> None:
        self._reply.status, self._reply.at = self._parser.get_status_code(), time.monotonic()
        self._reply.seconds = self._reply.at - self._start
        if not self._answered.done():
            self._answered.set_result(self._reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_answered") and not self._answered.done():
            self._answered.set_exception(ConnectionError(f"the connection was lost: {exc}"))

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


@dataclass
class Clients:
    """Everybody who asks one task of the service.

    Args:
        url: the gateway's.
        task: name of the task.
    """

    url: str
    task: str
    replies: list[Reply] = field(default_factory=list)
    """What was answered, in order."""

    def __post_init__(self) -> None:
        self._free: list[Connection] = []
        self._requests = itertools.cycle(list(_requests(self.task)))

    async def ask(self) -> Reply:
        """Ask one thing on a connection that is free, or a new one."""
        try:
            while self._free and self._free[-1].is_closing:
                self._free.pop()
            connection = self._free.pop() if self._free else await self._connect()
            reply = await connection.ask(next(self._requests))
            self._free.append(connection)
        except OSError:
            reply = Reply(status=0)
        self.replies.append(reply)
        return reply

    async def _connect(self) -> Connection:
        address, loop = urlsplit(self.url), asyncio.get_running_loop()
        host, port = str(address.hostname), int(address.port or 80)
        return (await loop.create_connection(Connection, host, port))[1]

    async def closed(self, number: int, until: float) -> None:
        """``number`` clients ask one thing after the other, and obey Retry-After."""

        async def client() -> None:
            while time.monotonic() < until:
                reply = await self.ask()
                if reply.status != 200:
                    await asyncio.sleep(reply.retry_after or 1)

        await asyncio.gather(*(client() for _ in range(number)))

    async def open(self, rate: float, until: float) -> int:
        """Requests come at random, ``rate`` a second, whatever becomes of those before; return
        their number once all are answered."""
        return await arrivals(self.ask, rate, lambda: time.monotonic() < until)

    def close(self) -> None:
        for connection in self._free:
            connection.close()


def _requests(task: str) -> Iterator[bytes]:
    chance = random.Random(5)
    for _ in range(3000):
        body = TASKS[task].draw(chance).model_dump_json().encode()
        yield (
            b"POST /gen/routine/%s HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (task.encode(), len(body), body)
        )


async def best(url: str, task: str, seconds: float = CLOSED_SECONDS) -> float:
    """Return the most answers per second that closed-loop clients get, each number of them for
    ``seconds``."""
    found = 0.0
    clients = Clients(url, task)
    await clients.closed(CLOSED[0], time.monotonic() + WARM_UP_SECONDS)
    for number in CLOSED:
        until, before = time.monotonic() + seconds, len(clients.replies)
        await clients.closed(number, until)
        good = [r for r in clients.replies[before:] if r.status == 200 and r.at < until]
        found = max(found, len(good) / seconds)
    clients.close()
    return found


async def _left(seconds: float) -> float:
    """Return the share of the processors that this process leaves to others for ``seconds``."""
    begun = time.process_time()
    await asyncio.sleep(seconds)
    return 1 - (time.process_time() - begun) / seconds / len(os.sched_getaffinity(0))


async def overload(main: int, url: str, task: str, seconds: float, most: float) -> dict[str, Any]:
    """Offer ``TIMES * most`` requests per second of ``task``; return what became of them."""
    gateway = psutil.Process(part(main, "gateway"))
    before, until = gateway.memory_info().rss, time.monotonic() + seconds
    crowd, obedient = Clients(url, task), Clients(url, task)
    asked, left, _ = await asyncio.gather(
        crowd.open(TIMES * most, until), _left(seconds), obedient.closed(OBEDIENT, until)
    )
    memory = gateway.memory_info().rss
    admitted = [r.seconds for r in crowd.replies if r.status == 200]
    refused = [r.seconds for r in crowd.replies if r.status == 429]
    good = [r for r in crowd.replies if r.status == 200 and r.at < until]
    through = sum(r.status == 200 for r in obedient.replies)
    crowd.close()
    obedient.close()
    return {
        "task": task,
        "offered": asked / seconds,
        "goodput": len(good) / seconds,
        "left": left,
        "statuses": dict(Counter(str(r.status) for r in crowd.replies)),
        "admitted p99": percentile(admitted, 99),
        "refused median": statistics.median(refused),
        "memory": [before, memory],
        "obedient": through,
    }


async def flood(url: str, by: str, task: str, most: float, seconds: float) -> dict[str, Any]:
    """Ask ``SHARE * most`` requests per second of ``task`` while clients of ``by`` ask for all they
    can get; return what became of the former."""
    crowd, few = Clients(url, by), Clients(url, task)
    until = time.monotonic() + WARM_UP_SECONDS + seconds
    flooding = asyncio.create_task(crowd.closed(FLOOD, until))
    await asyncio.sleep(WARM_UP_SECONDS)
    asked = await few.open(SHARE * most, until)
    await flooding
    good = [r.seconds for r in few.replies if r.status == 200]
    few.close()
    crowd.close()
    return {
        "by": by,
        "task": task,
        "offered": asked / seconds,
        "good": len(good) / asked,
        "p99": percentile(good, 99),
    }


async def all_of_it(
    main: int, url: str, seconds: float, rounds: int = ROUNDS
) -> tuple[list[Any], list[Any]]:
    """Overload the service with each task, ``rounds`` (odd) times, then flood each task with the
    other."""
    overloads, floods = {}, []
    for task in TASKS:
        found, most = [], await best(url, task)
        for _ in range(rounds):
            one, before = await overload(main, url, task, seconds, most), most
            most = await best(url, task)
            found.append(one | {"best": (before + most) / 2})
            print(f"overload: {found[-1]}", flush=True)
        overloads[task] = sorted(found, key=goodput)[rounds // 2]
    for by, task in itertools.permutations(TASKS, 2):
        floods.append(await flood(url, by, task, overloads[task]["best"], seconds / 3))
        print(f"overload: {floods[-1]}", flush=True)
    return list(overloads.values()), floods


def goodput(one: Mapping[str, Any]) -> float:
    """Return what was answered, of what the service can do with the processor time left to it."""
    return float(one["goodput"] / one["best"] / one["left"])


def faults(overloads: list[Any], floods: list[Any]) -> list[str]:
    """Return what must not have happened."""
    wrong = []
    for one in overloads:
        if goodput(one) < LEAST:
            wrong.append(f"{one['task']}: goodput {goodput(one):.2f} of the best")
        if one["admitted p99"] > DEADLINE_SECONDS:
            wrong.append(f"{one['task']}: admitted p99 {one['admitted p99']:.1f} s")
        if one["refused median"] > PROMPT_SECONDS:
            wrong.append(f"{one['task']}: refused after {1e3 * one['refused median']:.0f} ms")
        if set(one["statuses"]) - {"200", "429"}:
            wrong.append(f"{one['task']}: {one['statuses']}")
        if not one["obedient"]:
            wrong.append(f"{one['task']}: who obeyed Retry-After did not get through")
    wrong += [f"{o['task']}: {o['good']:.2f} good" for o in floods if o["good"] < LEAST]
    return wrong


def tables(overloads: list[Any], floods: list[Any]) -> tuple[str, str]:
    """Format the tables of docs/reliability.md."""
    first = [
        [
            one["task"],
            f"{one['best']:.0f}/s",
            f"{one['offered']:,.0f}/s",
            f"{one['goodput']:.0f}/s ({one['goodput'] / one['best']:.0%})",
            f"{1 - one['left']:.0%}",
            f"{goodput(one):.0%}",
            f"{one['admitted p99']:.1f} s",
            f"{1e3 * one['refused median']:.1f} ms",
            " to ".join(f"{size / 2**20:.0f}" for size in one["memory"]) + " MB",
            str(one["obedient"]),
        ]
        for one in overloads
    ]
    second = [
        [o["by"], o["task"], f"{o['offered']:.0f}/s", f"{o['good']:.1%}", f"{o['p99']:.2f} s"]
        for o in floods
    ]
    return markdown(OVERLOAD_HEADERS, first), markdown(FLOOD_HEADERS, second)


OVERLOAD_HEADERS = [
    "task", "it can do", "offered", "answered", "the load's processor time",
    "answered, of what it can do with the rest", "answered, p99", "refused, median",
    "gateway's memory", "obedient clients' answers",
]  # fmt: skip
FLOOD_HEADERS = ["flood of", "beside it", "offered", "answered", "p99"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="length of an overload")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    environment, url, _ = own_ports()
    with service(environment, url) as pid:
        found = uvloop.run(all_of_it(pid, url, options.seconds))
    if options.publish:
        where = setting("demo", DEMO / "base")
        save("overload", {"setting": where, "overloads": found[0], "floods": found[1]})
        first, second = tables(*found)
        show("overload", f"{first}\n\n{setting_line(where)}", RELIABILITY)
        show("flood", f"{second}\n\n{setting_line(where)}", RELIABILITY)
    if wrong := faults(*found):
        sys.exit("overload: " + "\noverload: ".join(wrong))


if __name__ == "__main__":
    main()
