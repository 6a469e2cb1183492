"""Tables and plot of the benchmark, generated from the result files."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.bench.peers import WORDS
from loadtests.report import RESULTS, markdown, setting_line, show
from serving.tasks.registry import TASKS

Rows = Sequence[Mapping[str, Any]]


def publish() -> None:
    """Write all available results to the pages that show them."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("bench-*.json")}
    for name, result in sorted(results.items()):
        show(name, table(result))
    first = next(iter(TASKS))
    plans = {name: f"bench-{name}-{first}" for name in ("demo", "full-size")}
    picture({name: results[f]["measured"] for name, f in plans.items() if f in results}, first)
    scores = {
        path.stem.removeprefix("scores-"): json.loads(path.read_text())
        for path in sorted(RESULTS.glob("scores-*.json"))
    }
    show("scores", scores_table(scores))


def kept(measured: Rows) -> float | None:
    """Return the share of the engine's requests/s that remains through the gateway: the median over
    interleaved rounds, or None if either was not measured."""
    rates = {row["peer"]: row["requests_per_second_by_round"] for row in measured}
    if not {"ours", "engine"} <= rates.keys():
        return None
    shares = [ours / alone for ours, alone in zip(rates["ours"], rates["engine"], strict=True)]
    return float(statistics.median(shares))


def table(result: Mapping[str, Any]) -> str:
    """Format one group and its test setup as Markdown."""
    measured = result["measured"]
    levels = sorted({row["level"] for row in measured})
    head = [result["task"], "passes, tokens", "correct", "memory"]
    head += [f"{level} at once: p50, p95, requests/s" for level in levels]
    cells = []
    for peer, name in WORDS.items():
        by_level = {row["level"]: row for row in measured if row["peer"] == peer}
        if not by_level:
            continue
        first = by_level[min(by_level)]
        correct, requests = (
            sum(row[key] for row in by_level.values()) for key in ("correct", "requests")
        )
        cells.append(
            [
                name,
                f"{_passes(first)}, {first['tokens_per_request']:.0f}",
                f"{correct:,} of {requests:,}",
                f"{first['memory_gb']} GB" if first["memory_gb"] else "–",
                *(_cell(by_level.get(level)) for level in levels),
            ]
        )
    words = [result["question"], markdown(head, cells)]
    share = kept(measured)
    if share is not None:
        words.append(f"{share:.2f} of the engine's requests/s are left behind the gateway.")
    ours = [row for row in measured if row["peer"] == "ours"]
    spent = ours[0]["drafter_microseconds_per_pass"] if ours else None
    if spent:
        words.append(f"The drafter takes {spent:.0f} µs of each of our passes.")
    return "\n\n".join([*words, setting_line(result)])


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the scores by ``finetune.evaluate`` of the demo adapters in each arithmetic."""
    cells = [
        [
            f"{name}, {dtype}",
            f"{score['with_adapter']:.1%} of each {score['part']}",
            f"{score['valid']:.1%}",
            f"{score['requests']:,}",
        ]
        for dtype, tasks in scores.items()
        for name, score in tasks.items()
    ]
    head = ("demo adapter", "exactly as the coach's", "valid", "unseen requests")
    return markdown(head, sorted(cells))


def _passes(row: Mapping[str, Any]) -> str:
    """Format forward passes per request: engine steps, valid while no two requests share one."""
    steps = row["steps_per_request"]
    if steps is None:  # Hugging Face: one pass per token
        steps = row["tokens_per_request"]
    return f"{steps:.1f}" if row["level"] == 1 else "-"


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return (
        f"{seconds(row['p50_seconds'])}, {seconds(row['p95_seconds'])}, "
        f"{row['requests_per_second']:.3g}"
    )


def seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.3g} s"


def picture(models: Mapping[str, Rows], task: str) -> None:
    """Plot latency at one request at a time, with one panel per model (``bench.png``)."""
    from matplotlib.figure import Figure

    alone = {
        name: {row["peer"]: row["p50_seconds"] for row in rows if row["level"] == 1}
        for name, rows in models.items()
    }
    figure = Figure(figsize=(13, 2.6), layout="constrained")
    panels = figure.subplots(1, len(alone), squeeze=False)
    for panel, (name, by_peer) in zip(panels[0], alone.items(), strict=True):
        peers = [peer for peer in WORDS if peer in by_peer][::-1]
        times = [by_peer[peer] for peer in peers]
        panel.plot(times, [WORDS[peer] for peer in peers], "o", markersize=8)
        for place, time in enumerate(times):
            panel.annotate(seconds(time), (time, place), (8, -3), textcoords="offset points")
        panel.set(xscale="log", xlim=(min(times) / 2, max(times) * 4))
        panel.set(xlabel=f"seconds for one {task} answer, one at a time (median)")
        panel.set_title(name, loc="left")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(axis="x", alpha=0.3)
    figure.savefig(Path(RESULTS) / "bench.png", dpi=110)
