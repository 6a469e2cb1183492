"""Load a running service and say how many answers a second were right and in time:
``python -m loadtests.load --shape stairs --level 64``.

Locust does the asking (``loadtests.locustfile``). A run leaves a folder with Locust's CSV files and
HTML report, the counts of every stage as JSON, and a picture. The exit code is 1 if a limit was
broken, 2 if the options make no sense or nobody answers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from prometheus_client.parser import text_string_to_metric_families

from loadtests.plan import COUNTS_FILE, KINDS, SHAPES, Plan
from loadtests.report import RESULTS, machine, markdown, percentile, save, show
from loadtests.stack import ROOT

PERCENTILES = (50, 95, 99)
OUTCOMES = ("good", "late", "wrong", "failed", "left", "broke")
STOP_SECONDS = 30
"""What is under way when the time is over may still end."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"load: {message}; see --help\n")
        sys.exit(2)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def _weights(names: Sequence[str] | None) -> Callable[[str], dict[str, int]]:
    def read(text: str) -> dict[str, int]:
        try:
            weights = {name: int(weight) for name, weight in _pairs(text)}
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not like rate=3,month=1") from None
        unknown = set(weights) - set(names or weights)
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(sorted(unknown))} is none of {', '.join(names or ())}"
            )
        if min(weights.values()) < 0 or not any(weights.values()):
            raise argparse.ArgumentTypeError(f"{text!r}: weights are 0 or more, and not all 0")
        return weights

    return read


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and middle for name, middle, _ in pairs):
        raise ValueError(text)
    return [(name.strip(), weight) for name, _, weight in pairs]


def parser() -> Parser:
    """The command's options."""
    found = Parser(prog="load", description=(__doc__ or "").partition("\n\n")[0])
    add = found.add_argument
    add("--url", default=f"http://127.0.0.1:{os.environ.get('PORT', '8000')}", help="the gateway's")
    add("--shape", choices=SHAPES, default="steady", help="load over time (%(default)s)")
    add("--level", type=_whole, default=8, help="users at the top; with --open, arrivals a second")
    add("--open", action="store_true", help="requests arrive at random, answered or not")
    add("--seconds", type=_positive, default=120.0, help="how long (%(default)s)")
    add("--mix", type=_weights(KINDS), default="rate=6,month=2,completions=2", help="what is asked")
    add("--adapters", type=_weights(None), default="rate=1,month=1", help="whom completions ask")
    add("--leave", type=_share, default=0.01, help="share of clients that disconnect (%(default)s)")
    add("--deadline", type=_positive, default=2.0, help="seconds; later is late (%(default)s)")
    add("--seed", type=int, default=1, help="of what is asked")
    add("--processes", type=_whole, default=1, help="Locust workers on this machine")
    add("--remote-workers", type=_whole, metavar="N", help="Locust workers on other machines")
    add("--out", type=Path, help="the folder that is left (loadtests/runs/<time>)")
    add("--max-failed", type=_share, default=0.01, help="share of requests (%(default)s)")
    add("--min-good", type=_share, default=0.95, help="share of answers (%(default)s)")
    add("--max-p95", type=_positive, default=math.inf, help="milliseconds, of the last stage")
    add("--web", action="store_true", help="Locust's own page, which sets the load")
    add("--publish", metavar="NAME", help="write loadtests/results/NAME.* and the README's table")
    return found


def models(url: str) -> list[str]:
    """What the service at ``url`` serves, once it is seen to be ready.

    Raises:
        OSError, ValueError: it is not, or is no gateway of ours.
    """
    urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
    with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as response:
        return [card["id"] for card in json.load(response)["data"]]


def memory_mb(url: str) -> int | None:
    """Resident memory of the gateway at ``url``; None where its metrics are kept from us."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
    except OSError:
        return None
    values = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "routine_resident_memory_bytes"
    ]
    return round(sum(values) / 1e6) if values else None


def run_locust(plan: Plan, url: str, folder: Path, options: argparse.Namespace) -> Counter[str]:
    """Run Locust to its end.

    Args:
        plan: what it does.
        url: the gateway's.
        folder: where Locust's own reports are left.
        options: the command's.

    Returns:
        What its users counted (``loadtests.locustfile.counts``).
    """
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", url]
    command += ["--csv", str(folder / "locust"), "--html", str(folder / "report.html")]
    command += ["--stop-timeout", str(STOP_SECONDS), "--loglevel", "WARNING"]
    if options.web:
        host = os.environ.get("LOCUST_WEB_HOST", "127.0.0.1")
        port = os.environ.get("LOCUST_WEB_PORT", "8089")
        command += ["--web-host", host, "--web-port", port]
        print(f"Locust's page: http://{host}:{port}; Ctrl-C ends the test and counts", flush=True)
    else:
        command += ["--headless", "--only-summary"]
    if options.remote_workers:
        command += ["--master", "--expect-workers", str(options.remote_workers)]
        told = " ".join(f"{name}={shlex.quote(value)}" for name, value in plan.store().items())
        print(
            f"waiting for {options.remote_workers} workers; in this repository on their machines:\n"
            f"{told} .venv/bin/python -m locust -f loadtests/locustfile.py --worker "
            f"--master-host {socket.gethostname()}",
            flush=True,
        )
    elif options.processes > 1:
        command += ["--processes", str(options.processes)]
    path = folder / "counts.json"
    environment = {**os.environ, **plan.store(), COUNTS_FILE: str(path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as locust:
        signal.signal(signal.SIGINT, lambda *_: None)  # Locust gets it too, and ends well
        code = locust.wait()
    if code != 0 or not path.exists():
        sys.exit(f"load: Locust ended with {code}; what it said is above")
    counts: Counter[str] = Counter(json.loads(path.read_text(encoding="utf-8")))
    path.unlink()
    return counts


def stages(plan: Plan, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """What was counted in each stage: requests by outcome, goodput, milliseconds of answers."""
    found = []
    for number, stage in enumerate(plan.stages):
        own: Counter[str] = Counter()
        for key, count in counts.items():
            at, _, what = key.split("|")
            if int(at) == number:
                own[what] += count
        times, firsts = _milliseconds(own, "ms "), _milliseconds(own, "first token ms ")
        seconds = stage.time * plan.seconds
        found.append(
            {
                "load": max(1, round(stage.load * plan.level)),
                "seconds": seconds,
                **{outcome: own[outcome] for outcome in OUTCOMES},
                "told_to_wait": own["told to wait"],
                "goodput": round(own["good"] / seconds, 2),
                "tokens_per_second": round(own["tokens"] / seconds, 1),
                **{f"p{p}_ms": percentile(times, p) if times else None for p in PERCENTILES},
                "first_token_p50_ms": percentile(firsts, 50) if firsts else None,
            }
        )
    return found


def _milliseconds(counted: Counter[str], kind: str) -> list[int]:
    """The times that were counted one by one under ``kind``."""
    times = {what: n for what, n in counted.items() if what.startswith(kind)}
    return [int(what.removeprefix(kind)) for what in Counter(times).elements()]


def knee(found: Sequence[Mapping[str, Any]]) -> int | None:
    """The stage after which more load buys little: where goodput over load, both scaled to 0 to 1,
    is farthest above the diagonal (Satopää et al., "Finding a Kneedle in a Haystack", 2011)."""
    points = {number: stage for number, stage in enumerate(found) if stage["goodput"]}
    loads = [stage["load"] for stage in points.values()]
    goods = [stage["goodput"] for stage in points.values()]
    if len(set(loads)) < 3 or len(set(goods)) < 3:
        return None

    def above(number: int) -> float:
        stage = points[number]
        height: float = (stage["goodput"] - min(goods)) / (max(goods) - min(goods))
        width: float = (stage["load"] - min(loads)) / (max(loads) - min(loads))
        return height - width

    return max(points, key=above)


def broken_limits(found: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> list[str]:
    """The limits that were broken, in words."""
    total = {outcome: sum(stage[outcome] for stage in found) for outcome in OUTCOMES}
    answered = sum(total[outcome] for outcome in ("good", "late", "wrong"))
    asked = answered + total["failed"]
    words = []
    if total["broke"]:
        words.append(f"{total['broke']} requests broke the load test itself, as said above")
    if not asked:
        return [*words, "nothing was asked"]
    if total["wrong"]:
        words.append(f"{total['wrong']} answers were wrong")
    if total["failed"] > options.max_failed * asked:
        words.append(f"{total['failed']} of {asked} requests failed")
    if total["good"] < options.min_good * answered:
        words.append(f"only {total['good']} of {answered} answers were right and in time")
    last = found[-1]["p95_ms"]
    if last is not None and last > options.max_p95:
        words.append(f"p95 is {last} ms at the end")
    return words


def draw(plan: Plan, found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Goodput against times, a point a stage, the knee marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    points = [stage for stage in found if stage["p50_ms"] is not None]
    for percent in PERCENTILES:
        x = [stage["goodput"] for stage in points]
        y = [stage[f"p{percent}_ms"] for stage in points]
        axes.plot(x, y, "o-", label=f"p{percent}")
    unit = "arrivals/s" if plan.is_open else "users"
    for stage in points:
        axes.annotate(
            str(stage["load"]), (stage["goodput"], stage["p99_ms"]), (0, 6),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    best = knee(found)
    if best is not None:
        at = found[best]
        axes.axvline(at["goodput"], color="grey", linestyle=":")
        axes.annotate(
            f"knee: {at['load']} {unit},\n{at['goodput']:.3g} good/s",
            (at["goodput"], 0.02), (-6, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("goodput: right answers in time, requests/s")
    axes.set_ylabel("answer time, ms")
    axes.set_title(f"{plan.shape or 'Locust page'}: numbers at the points are {unit}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(summary: Mapping[str, Any]) -> str:
    """The stages, and what they were measured on."""
    plan = summary["plan"]
    unit = "arrivals/s" if plan["is_open"] else "users"
    head = [unit, "good/s", "p50", "p95", "p99", "late", "wrong", "failed", "told to wait", "left"]
    cells = [
        [
            str(stage["load"]),
            f"{stage['goodput']:g}",
            *(_ms(stage[f"p{p}_ms"]) for p in PERCENTILES),
            *(str(stage[key]) for key in ("late", "wrong", "failed", "told_to_wait", "left")),
        ]
        for stage in summary["stages"]
    ]
    mix = ", ".join(f"{kind} {weight}" for kind, weight in plan["mix"].items())
    line = (
        f"Mix {mix}; late is over {plan['deadline_seconds']:g} s; a share of {plan['leave']:g} of "
        f"clients leaves; the gateway's memory went from {_mb(summary['memory_mb'])}; "
        f"{summary['machine']}, with Locust {summary['locust']} on the same cores; "
        f"{summary['date']}."
    )
    return f"{markdown(head, cells)}\n\n{line}"


def _mb(values: Sequence[int | None]) -> str:
    return " to ".join("–" if value is None else f"{value} MB" for value in values)


def _ms(value: int | None) -> str:
    return "–" if value is None else f"{value:,} ms"


def main() -> None:
    options = parser().parse_args()
    url = options.url.rstrip("/")
    try:
        served = models(url)
    except (OSError, ValueError) as error:
        parser().error(f"nobody is ready at {url} ({error}): start it with `make serve`")
    if unknown := set(options.adapters) - set(served):
        parser().error(f"--adapters: {', '.join(unknown)} is none of {', '.join(served)}")
    plan = Plan(
        shape="" if options.web else options.shape,
        level=options.level,
        seconds=options.seconds,
        is_open=options.open,
        mix=options.mix,
        adapters=options.adapters,
        leave=options.leave,
        deadline_seconds=options.deadline,
        seed=options.seed,
    )
    folder = options.out or ROOT / "loadtests" / "runs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    memory = [memory_mb(url)]
    counts = run_locust(plan, url, folder, options)
    memory.append(memory_mb(url))
    found = stages(plan, counts)
    broken = broken_limits(found, options)
    summary = {
        **machine("locust"),
        "plan": json.loads(next(iter(plan.store().values()))),
        "stages": found,
        "knee": knee(found),
        "memory_mb": memory,
        "broken": broken,
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")
    draw(plan, found, folder / "load.png")
    print(f"\n{folder}: report.html, load.png, summary.json, locust_*.csv\n")
    if not options.publish:
        print(table(summary))
    else:
        save(options.publish, summary)
        draw(plan, found, RESULTS / f"{options.publish}.png")
        show(options.publish, table(summary))
    if broken:
        sys.exit(f"load: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
