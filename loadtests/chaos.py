"""Break the service under load and see what its callers see: ``make chaos``.

A service of its own on this machine, a mixed load, and one fault after the other. Every answer is
checked; every refusal must be a well-formed error; requests may only break off where the gateway
itself is killed. Results go to docs/reliability.md.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.report import markdown, save, setting, setting_line, show
from loadtests.service import ROOT, family, own_ports, served
from serving.engine.settings import DEMO
from serving.tasks.registry import TASKS

PAGE = ROOT / "docs" / "reliability.md"
CLIENTS = 8
DEADLINE_MS = 10_000
STILL_SECONDS = 4
"""Time a suspended process stands still."""
RECOVERED_SECONDS = 120
"""Longest wait for the service to answer everything again."""
STEADY_SECONDS = 5
"""Time of good answers before a fault, and after."""
PARTS = {
    "gateway": "-m serving.gateway",
    "API server": "-m serving.engine.serve",
    "core": "EngineCore",
}
BROKE_OFF = "broke off"


@dataclass
class Seen:
    """What one request met."""

    kind: str
    at: float
    """When it was sent, on the monotonic clock."""
    seconds: float = 0.0
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
        chance = random.Random(seed)
        timeout = aiohttp.ClientTimeout(DEADLINE_MS / 1000 + 5)
        while not self.stopped:
            async with aiohttp.ClientSession(self.url, timeout=timeout) as session:
                for _ in range(20):
                    if self.stopped:
                        break
                    one = Seen(chance.choice([*TASKS, "completion"]), time.monotonic())
                    try:
                        pause = await self._ask(session, one, chance)
                    except (aiohttp.ClientError, TimeoutError) as error:
                        one.said, pause = BROKE_OFF, 0.2
                        if isinstance(error, TimeoutError):
                            one.wrong = "no answer within the deadline"
                    one.seconds = time.monotonic() - one.at
                    self.seen.append(one)
                    await asyncio.sleep(pause)

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


@contextmanager
def service() -> Iterator[tuple[int, str]]:
    """Start the service; yield its process and its URL."""
    environment, url, _ = own_ports()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "serving"]
        with served(command, f"{url}/readyz", Path(folder) / "log", environment) as process:
            yield process.pid, url


def part(main: int, name: str) -> int:
    """Return the process id of a part of the service."""
    (pid,) = [p.pid for p in family(main) if PARTS[name] in " ".join(p.cmdline())]
    return pid


async def suffer(load: Load, main: int, name: str, number: signal.Signals) -> dict[str, Any]:
    """Break one part; return what the clients saw until all of them were answered again."""
    start, pid = time.monotonic(), part(main, name)
    os.kill(pid, number)
    if number == signal.SIGSTOP:
        await asyncio.sleep(STILL_SECONDS)
        os.kill(pid, signal.SIGCONT)
    mended = time.monotonic()
    while not (good := _all_answered(load, mended)):
        if time.monotonic() - mended > RECOVERED_SECONDS:
            sys.exit(f"chaos: {name} after {number.name}: no recovery in {RECOVERED_SECONDS} s")
        await asyncio.sleep(0.05)
    await asyncio.sleep(STEADY_SECONDS)
    met = [one for one in load.seen if one.at > start - 1]
    return {
        "fault": f"{'kill -9' if number == signal.SIGKILL else 'stop and go'}, {name}",
        "requests": len(met),
        "ok": sum(one.said == "ok" for one in met),
        "errors": sorted({one.said for one in met} - {"ok", BROKE_OFF}),
        "broke off": sum(one.said == BROKE_OFF for one in met),
        "wrong": [one.wrong for one in met if one.wrong],
        "longest": max(one.seconds for one in met),
        "recovery": good - mended,
    }


def _all_answered(load: Load, since: float) -> float:
    """Return when requests of all kinds that were sent ``since`` had been answered; 0 if not."""
    kinds = {*TASKS, "completion"}
    for one in load.seen:
        if one.at > since and one.said == "ok":
            kinds.discard(one.kind)
            if not kinds:
                return one.at + one.seconds
    return 0.0


async def break_all(main: int, url: str, repeat: int) -> list[dict[str, Any]]:
    """Break each part in each way, ``repeat`` times."""
    load = Load(url)
    clients = [asyncio.create_task(load.client(seed)) for seed in range(CLIENTS)]
    await asyncio.sleep(STEADY_SECONDS)
    found = []
    for _ in range(repeat):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            for name in PARTS:
                found.append(await suffer(load, main, name, number))
                print(f"chaos: {found[-1]}", flush=True)
    load.stopped = True
    await asyncio.gather(*clients)
    return found


def faults(found: list[dict[str, Any]]) -> list[str]:
    """Return what must not have happened."""
    wrong = [f"{one['fault']}: {said}" for one in found for said in one["wrong"]]
    late = DEADLINE_MS / 1000 + 1
    wrong += [f"{o['fault']}: {o['longest']:.1f} s" for o in found if o["longest"] > late]
    return wrong + [
        f"{one['fault']}: {one['broke off']} requests broke off"
        for one in found
        if one["broke off"] and "gateway" not in one["fault"]
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


HEADERS = [
    "fault", "times", "answered", "wrong", "errors", "broke off", "longest wait",
    "recovery, median", "at most",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="times each fault happens")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    with service() as (pid, url):
        found = asyncio.run(break_all(pid, url, options.repeat))
    if options.publish:
        where = setting("demo", DEMO / "base")
        save("chaos", {"setting": where, "faults": found})
        show("chaos", f"{table(found)}\n\n{setting_line(where)}", PAGE)
    if wrong := faults(found):
        sys.exit("chaos: " + "\nchaos: ".join(wrong))


if __name__ == "__main__":
    main()
