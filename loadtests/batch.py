"""What a batch gets done, and what it costs those who ask beside it: ``make bench-batch``.

A service of its own on this machine, asked for rates in turn by clients one thing after the
other, by a batch, by requests that come at random, and by both. Results go to docs/reliability.md.
"""

import argparse
import asyncio
import io
import random
import statistics
import sys
import time
from typing import Any

import aiohttp
import uvloop

from loadtests.overload import CLOSED, Clients, best
from loadtests.report import RELIABILITY, markdown, percentile, save, setting, setting_line, show
from loadtests.service import own_ports, service
from serving.engine.settings import DEMO
from serving.tasks.registry import TASKS

TASK = next(iter(TASKS.values()))
LINES = 10_000
"""As many as the service takes."""
SHARE = 0.05
"""Requests beside the batch, as a share of what the service can do."""
LEAST, MOST_TIMES = 0.9, 2.0
"""Least answers of a batch, of what the service can do, and most p95 beside it, of that alone."""
WARM_UP_SECONDS = 3


async def batch(url: str, seconds: float) -> float:
    """Return the answers per second that a batch gets, after the warm-up."""
    chance, warm = random.Random(7), time.monotonic() + WARM_UP_SECONDS
    body = "\n".join(TASK.draw(chance).model_dump_json() for _ in range(LINES)).encode()
    until, count, headers = warm + seconds, 0, {"content-type": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession(url) as session,
        session.post(
            f"/gen/routine/{TASK.name}/batch", data=io.BytesIO(body), headers=headers
        ) as response,
    ):
        async for part in response.content.iter_any():
            if (now := time.monotonic()) > until:
                return count / seconds
            count += part.count(b"\n") * (now > warm)
    raise RuntimeError(f"{LINES} lines took less than {seconds} s: shorten it")


async def interactive(url: str, rate: float, seconds: float) -> list[float]:
    """Return the seconds that each of the requests took that came at random, ``rate`` a second."""
    clients = Clients(url, TASK.name)
    await asyncio.sleep(WARM_UP_SECONDS)
    await clients.open(rate, time.monotonic() + seconds)
    clients.close()
    assert {reply.status for reply in clients.replies} == {200}
    return [reply.seconds for reply in clients.replies]


async def one_round(url: str, seconds: float) -> dict[str, float]:
    """Measure everything once."""
    most = await best(url, TASK.name, seconds / len(CLOSED))
    rate = SHARE * most
    by_itself = await batch(url, seconds)
    alone = await interactive(url, rate, seconds)
    beside, with_others = await asyncio.gather(interactive(url, rate, seconds), batch(url, seconds))
    return {
        "best": most,
        "batch": by_itself,
        "batch beside": with_others,
        "offered": rate,
        "p95": percentile(alone, 95),
        "p95 beside": percentile(beside, 95),
        "median": statistics.median(alone),
        "median beside": statistics.median(beside),
    }


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure, and of the ratios within a round."""
    ratios = [
        {
            "alone": one["batch"] / one["best"],
            "share": (one["batch beside"] + one["offered"]) / one["best"],
            "times": one["p95 beside"] / one["p95"],
        }
        for one in rounds
    ]
    return {
        name: statistics.median(one[name] for one in found)
        for found in (rounds, ratios)
        for name in found[0]
    }


def faults(found: dict[str, float]) -> list[str]:
    """Return what must not be."""
    wrong = []
    if found["alone"] < LEAST:
        wrong.append(f"a batch gets {found['alone']:.2f} of what the service can do")
    if found["times"] > MOST_TIMES:
        wrong.append(f"p95 beside a batch is {found['times']:.1f} times that alone")
    return wrong


def table(found: dict[str, float]) -> str:
    """Format the table of docs/reliability.md."""
    head = ["", "alone", "beside each other", "ratio"]
    rows = [
        [
            f"batch, answers a second, of {found['best']:.0f} that clients get",
            f"{found['batch']:.0f} ({found['alone']:.0%})",
            f"{found['batch beside']:.0f}",
            f"together {found['share']:.0%} of what clients get",
        ],
        [
            f"{found['offered']:.1f} requests a second: median, p95",
            f"{1e3 * found['median']:.0f} ms, {1e3 * found['p95']:.0f} ms",
            f"{1e3 * found['median beside']:.0f} ms, {1e3 * found['p95 beside']:.0f} ms",
            f"p95 {found['times']:.2f} times",
        ],
    ]
    return markdown(head, rows)


async def measure(url: str, seconds: float, number: int) -> list[dict[str, float]]:
    """Return the figures of each round."""
    rounds = []
    for _ in range(number):
        rounds.append(await one_round(url, seconds))
        print(f"batch: {rounds[-1]}", flush=True)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    environment, url, _ = own_ports()
    with service(environment, url):
        rounds = uvloop.run(measure(url, options.seconds, options.rounds))
    found = medians(rounds)
    text = table(found)
    if options.publish:
        where: dict[str, Any] = setting("demo", DEMO / "base")
        save("batch", {"setting": where, "rounds": rounds})
        show("batch", f"{text}\n\n{setting_line(where)}", RELIABILITY)
    else:
        print(text)
    if wrong := faults(found):
        sys.exit("batch: " + "\nbatch: ".join(wrong))


if __name__ == "__main__":
    main()
