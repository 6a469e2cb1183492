"""Break the service under load and see what its callers see: ``make chaos``, ``make load-soak``.

A service of its own on this machine, a mixed load, and one fault after the other: a part dies or
stands still, or the network between gateway and engine misbehaves. Every answer is checked; every
refusal must be a well-formed error; requests may only break off where the gateway itself is killed.
Results go to docs/reliability.md.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from loadtests.arrivals import arrivals
from loadtests.report import RELIABILITY, markdown, save, setting, setting_line, show
from loadtests.service import PARTS, free_port, memory, own_ports, part, service
from serving.engine.settings import DEMO
from serving.tasks.registry import TASKS

CLIENTS = 8
DEADLINE_MS = 10_000
FAULT_SECONDS = 4
"""Time a suspended process stands still, or the network misbehaves."""
DELAY_SECONDS = 1
"""What a slow network adds to each part of an answer."""
SLOW, RESET, HALF = NETWORK = ("slow", "reset", "half an answer")
"""An answer comes late; is cut off by a reset; ends in the middle."""
RECOVERED_SECONDS = 120
"""Longest wait for the service to answer everything again."""
STEADY_SECONDS = 5
"""Time of good answers before a fault, and after."""
BROKE_OFF = "broke off"
GATEWAY_DIES = "kill -9, gateway"
SOAK_CLIENTS, SOAK_SECONDS, SOAK_SHARE = 32, 10, 0.8
"""A soak's load: a share of what so many clients get in so many seconds."""
PAUSE_SECONDS = 60
"""Time between the beginnings of two faults in a soak."""


@dataclass
class Seen:
    """What one request met."""

    kind: str
    at: float
    """When it was sent, on the monotonic clock."""
    seconds: float = 0.0
    """Until it was over; 0 while it is under way."""
    said: str = ""
    """"ok", the error's code, or ``BROKE_OFF``."""
    wrong: str = ""
    """What was wrong with the answer, if anything."""


@dataclass
class Load:
    """Clients that ask one thing after the other until they are stopped.

    Args:
        url: the gateway's.
    """

    url: str
    seen: list[Seen] = field(default_factory=list)
    stopped: bool = False

    async def client(self, seed: int) -> None:
        """Ask one thing after the other, and obey Retry-After."""
        chance = random.Random(seed)
        while not self.stopped:
            async with self._session() as session:
                for _ in range(20):
                    if self.stopped:
                        break
                    await asyncio.sleep(await self._see(session, chance))

    async def open(self, rate: float) -> None:
        """Ask ``rate`` things a second, at random, whatever becomes of those before."""
        async with self._session() as session:
            ask = partial(self._see, session, random.Random(0))
            await arrivals(ask, rate, lambda: not self.stopped)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(DEADLINE_MS / 1000 + 5)
        return aiohttp.ClientSession(
            self.url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        )

    async def _see(self, session: aiohttp.ClientSession, chance: random.Random) -> float:
        """Ask one thing and note what became of it; return the seconds to wait before the next."""
        one = Seen(chance.choice([*TASKS, "completion"]), time.monotonic())
        self.seen.append(one)
        try:
            pause = await self._ask(session, one, chance)
        except (aiohttp.ClientError, TimeoutError) as error:
            one.said, pause = BROKE_OFF, 0.2
            if isinstance(error, TimeoutError):
                one.wrong = "no answer within the deadline"
        one.seconds = time.monotonic() - one.at
        return pause

    async def _ask(self, session: aiohttp.ClientSession, one: Seen, chance: random.Random) -> float:
        task = TASKS.get(one.kind) or chance.choice(list(TASKS.values()))
        asked = task.draw(chance)
        path, body = f"/gen/routine/{one.kind}", asked.model_dump(mode="json")
        if one.kind == "completion":
            path, body = "/v1/completions", {
                "model": task.name, "prompt": task.question(asked).prompt, "max_tokens": 16,
                "stream": True,
            }  # fmt: skip
        headers = {"x-request-timeout-ms": str(DEADLINE_MS)}
        async with session.post(path, json=body, headers=headers) as response:
            text = await response.text()
        if response.status == 200 and one.kind == "completion":
            one.said, one.wrong = _stream(text)
        elif response.status == 200:
            broken = _broken(task, asked, text)
            one.said, one.wrong = "ok", broken
        else:
            one.said, one.wrong = _error(text)
        return float(response.headers.get("retry-after", 0))


def _broken(task: Any, asked: Any, text: str) -> str:
    try:
        return ", ".join(task.check(asked, json.loads(text)))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"malformed: {error!r}"


def _error(text: str) -> tuple[str, str]:
    """Return an error's code, and what is wrong with its shape."""
    try:
        error = json.loads(text)["error"]
        return error["code"], "" if set(error) == {"message", "type", "param", "code"} else text
    except (ValueError, KeyError, TypeError):
        return "?", f"no error of ours: {text[:100]}"


def _stream(text: str) -> tuple[str, str]:
    """Return what a stream said at its end."""
    last = text.removesuffix("\n\n").rpartition("\n\n")[2].removeprefix("data: ")
    return ("ok", "") if last == "[DONE]" else _error(last)


class Network:
    """TCP between gateway and engine, which can misbehave. It runs in a thread of its own.

    Args:
        port: the engine's.
    """

    def __init__(self, port: int) -> None:
        self._port, own = port, free_port()
        self.url = f"http://127.0.0.1:{own}"
        self.fault = ""
        """One of ``NETWORK``, or nothing."""
        threading.Thread(target=asyncio.run, args=(self._serve(own),), daemon=True).start()

    async def _serve(self, own: int) -> None:
        await (await asyncio.start_server(self._connect, "127.0.0.1", own)).serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._pass(reader, requests, is_answer=False),
            self._pass(answers, writer, is_answer=True),
        )

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(2**16):
                if is_answer and self.fault == SLOW:
                    await asyncio.sleep(DELAY_SECONDS)
                elif is_answer and self.fault:
                    target.write(data[: len(data) // 2])
                    await target.drain()
                    if self.fault == RESET:
                        _reset(target)
                    break
                target.write(data)
                await target.drain()
        target.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with RST instead of FIN (socket(7), SO_LINGER)."""
    made: socket.socket = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _kill(main: int, name: str) -> None:
    os.kill(part(main, name), signal.SIGKILL)


async def _stand_still(main: int, name: str) -> None:
    pid = part(main, name)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FAULT_SECONDS)
    os.kill(pid, signal.SIGCONT)


async def _misbehave(network: Network, fault: str) -> None:
    network.fault = fault
    await asyncio.sleep(FAULT_SECONDS)
    network.fault = ""


def all_faults(main: int, network: Network) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return what can happen, by name."""
    return {
        **{f"kill -9, {name}": partial(_kill, main, name) for name in PARTS},
        **{f"stop and go, {name}": partial(_stand_still, main, name) for name in PARTS},
        **{f"network, {fault}": partial(_misbehave, network, fault) for fault in NETWORK},
    }


async def suffer(
    load: Load, name: str, happen: Callable[[], Awaitable[None]], seconds: float = 0
) -> dict[str, Any]:
    """Let a fault happen; return what the clients saw until all of them were answered again, and
    for ``seconds`` at least."""
    start = time.monotonic()
    await happen()
    mended = time.monotonic()
    while not (good := _all_answered(load, mended)):
        if time.monotonic() - mended > RECOVERED_SECONDS:
            sys.exit(f"chaos: {name}: no recovery in {RECOVERED_SECONDS} s")
        await asyncio.sleep(0.05)
    await asyncio.sleep(max(STEADY_SECONDS, start + seconds - time.monotonic()))
    met = [one for one in load.seen if not one.seconds or one.at + one.seconds > start]
    while not all(one.seconds for one in met):  # noqa: ASYNC110 (the clients have a timeout)
        await asyncio.sleep(0.05)
    found = {
        "fault": name,
        "requests": len(met),
        "ok": sum(one.said == "ok" for one in met),
        "errors": sorted({one.said for one in met} - {"ok", BROKE_OFF}),
        "broke off": sum(one.said == BROKE_OFF for one in met),
        "wrong": [one.wrong for one in met if one.wrong],
        "longest": max(one.seconds for one in met),
        "recovery": good - mended,
    }
    print(f"chaos: {found}", flush=True)
    return found


def _all_answered(load: Load, since: float) -> float:
    """Return when requests of all kinds that were sent ``since`` had been answered; 0 if not."""
    kinds = {*TASKS, "completion"}
    for one in load.seen:
        if one.at > since and one.seconds and one.said == "ok":
            kinds.discard(one.kind)
            if not kinds:
                return one.at + one.seconds
    return 0.0


async def break_all(main: int, url: str, network: Network, repeat: int) -> list[dict[str, Any]]:
    """Let everything happen, ``repeat`` times, beside clients that ask one thing at a time."""
    load = Load(url)
    clients = [asyncio.create_task(load.client(seed)) for seed in range(CLIENTS)]
    await asyncio.sleep(STEADY_SECONDS)
    found = [
        await suffer(load, name, happen)
        for _ in range(repeat)
        for name, happen in all_faults(main, network).items()
    ]
    load.stopped = True
    await asyncio.gather(*clients)
    return found


async def soak(main: int, url: str, network: Network, minutes: int) -> tuple[float, list[Any]]:
    """Let something happen each minute, under a steady load; return its requests per second, and
    what the clients saw of each minute."""
    trial = Load(url)
    clients = [asyncio.create_task(trial.client(seed)) for seed in range(SOAK_CLIENTS)]
    await asyncio.sleep(SOAK_SECONDS)  # the first are slower
    warm = time.monotonic()
    await asyncio.sleep(SOAK_SECONDS)
    trial.stopped = True
    answered = sum(one.said == "ok" and one.at + one.seconds > warm for one in trial.seen)
    rate = SOAK_SHARE * answered / SOAK_SECONDS
    await asyncio.gather(*clients)
    print(f"chaos: {rate:.1f} requests a second", flush=True)
    load, found = Load(url), []
    coming = asyncio.create_task(load.open(rate))
    for (name, happen), _ in zip(
        itertools.cycle(all_faults(main, network).items()), range(minutes), strict=False
    ):
        await asyncio.sleep(STEADY_SECONDS)
        found.append(await suffer(load, name, happen, PAUSE_SECONDS - STEADY_SECONDS))
        found[-1]["memory"] = memory(main)
        load.seen = [one for one in load.seen if not one.seconds]
    load.stopped = True
    await coming
    return rate, found


def faults(found: list[dict[str, Any]]) -> list[str]:
    """Return what must not have happened."""
    wrong = [f"{one['fault']}: {said}" for one in found for said in one["wrong"]]
    late = DEADLINE_MS / 1000 + 1
    wrong += [f"{o['fault']}: {o['longest']:.1f} s" for o in found if o["longest"] > late]
    return wrong + [
        f"{one['fault']}: {one['broke off']} requests broke off"
        for one in found
        if one["broke off"] and one["fault"] != GATEWAY_DIES
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Format the table of docs/reliability.md, a row a fault."""
    kinds = dict.fromkeys(one["fault"] for one in found)
    tries = {kind: [one for one in found if one["fault"] == kind] for kind in kinds}
    cells = [
        [
            kind,
            str(len(these)),
            f"{sum(one['ok'] for one in these):,} of {sum(one['requests'] for one in these):,}",
            str(sum(len(one["wrong"]) for one in these)),
            ", ".join(sorted({code for one in these for code in one["errors"]})) or "none",
            str(sum(one["broke off"] for one in these)),
            f"{max(one['longest'] for one in these):.1f} s",
            f"{statistics.median(one['recovery'] for one in these):.1f} s",
            f"{max(one['recovery'] for one in these):.1f} s",
        ]
        for kind, these in tries.items()
    ]
    return markdown(HEADERS, cells)


def soaked(rate: float, found: list[dict[str, Any]]) -> str:
    """Format a soak's paragraph and table."""
    first, last = (found[n]["memory"] / 2**20 for n in (0, -1))
    return (
        f"{len(found)} minutes at {rate:.0f} requests a second, memory {first:,.0f} MB after the "
        f"first minute and {last:,.0f} MB after the last:\n\n{table(found)}"
    )


HEADERS = [
    "fault", "times", "answered", "wrong", "errors", "broke off", "longest wait",
    "recovery, median", "at most",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="times each fault happens")
    parser.add_argument("--soak", type=int, metavar="MINUTES", help="one fault a minute instead")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    environment, url, _ = own_ports()
    network = Network(int(environment["ENGINE_PORT"]))
    with service({**environment, "ENGINE_URL": network.url}, url) as pid:
        if options.soak:
            rate, found = asyncio.run(soak(pid, url, network, options.soak))
        else:
            found = asyncio.run(break_all(pid, url, network, options.repeat))
    if options.publish:
        where = setting("demo", DEMO / "base")
        name, text = ("soak", soaked(rate, found)) if options.soak else ("chaos", table(found))
        save(name, {"setting": where, "faults": found})
        show(name, f"{text}\n\n{setting_line(where)}", RELIABILITY)
    if wrong := faults(found):
        sys.exit("chaos: " + "\nchaos: ".join(wrong))


if __name__ == "__main__":
    main()
