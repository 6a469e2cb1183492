"""The benchmark's tables and picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.drafter_cost import sentence
from loadtests.peers import ENGINES, WORDS
from loadtests.report import markdown, setting_line


def tables(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for each run and kind of request."""
    parts = []
    for result in results:
        parts.append(setting_line(result))
        asked = list(dict.fromkeys(row["asked"] for row in result["measured"]))
        parts += [_table(result["measured"], one) for one in asked]
        parts += _kept(result["measured"])
    return "\n\n".join([*parts, sentence(results[0]["drafter"])])


def kept(measured: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of an engine's requests/s that is left with the gateway in front, by name of the
    whole service, where both were asked: the median over interleaved rounds."""
    rates = {row["peer"]: row["requests_per_second_by_round"] for row in measured}
    return {
        stack: statistics.median(
            ours / alone for ours, alone in zip(rates[stack], rates[engine], strict=True)
        )
        for engine, stack in ENGINES.items()
        if {engine, stack} <= rates.keys()
    }


def _kept(measured: Sequence[dict[str, Any]]) -> list[str]:
    """``kept`` in words."""
    shares = [f"{share:.2f} ({WORDS[stack]})" for stack, share in kept(measured).items()]
    words = "The share of the engine's own requests/s that is left with the gateway in front: "
    return [f"{words}{', '.join(shares)}."] if shares else []


def _table(measured: Sequence[dict[str, Any]], asked: str, memory: bool = False) -> str:
    levels = sorted({row["level"] for row in measured if row["asked"] == asked})
    head = [asked, "passes, tokens", "correct"]
    head += [f"{level} at once: p50, p95, requests/s" for level in levels]
    head += ["memory"] * memory
    cells = []
    for peer, words in WORDS.items():
        by_level = {
            row["level"]: row for row in measured if (row["asked"], row["peer"]) == (asked, peer)
        }
        if not by_level:
            continue
        first = by_level[min(by_level)]
        correct = sum(row["correct"] for row in by_level.values())
        requests = sum(row["requests"] for row in by_level.values())
        cells.append(
            [
                words,
                f"{_passes(first)}, {first['tokens_per_request']:.0f}",
                f"{correct:,} of {requests:,}",
                *(_cell(by_level.get(level)) for level in levels),
                *[f"{first.get('memory_gb')} GB"] * memory,
            ]
        )
    return markdown(head, cells)


def arithmetic_table(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for each model: how fast each arithmetic is, and what memory it takes."""
    parts = []
    for result in results:
        parts += [setting_line(result), _table(result["measured"], "rate", memory=True)]
    return "\n\n".join(parts)


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """How well the demo's adapters do in each arithmetic, as ``finetune.evaluate`` scored them."""
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


def _passes(row: dict[str, Any]) -> str:
    """Forward passes a request: the engine's steps, as long as no two requests share one."""
    steps = row["steps_per_request"]
    if steps is None:  # Hugging Face: one for each token
        steps = row["tokens_per_request"]
    return f"{steps:.1f}" if row["level"] == 1 else "-"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return (
        f"{_seconds(row['p50_seconds'])}, {_seconds(row['p95_seconds'])}, "
        f"{row['requests_per_second']:.3g}"
    )


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.3g} s"


def picture(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency one at a time, and requests a second over requests at once, a row of panels for each
    model (``rate`` requests). Where several runs measured a peer, the first is shown."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    models: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for result in results:
        rows = models.setdefault(result["model"], {})
        for row in result["measured"]:
            if row["asked"] == "rate":
                rows.setdefault((row["peer"], row["level"]), row)
    figure, panels = pyplot.subplots(
        len(models), 2, figsize=(13, 3.4 * len(models)), squeeze=False, layout="constrained"
    )
    colours = dict(zip(WORDS, pyplot.colormaps["tab10"](range(len(WORDS))), strict=True))
    for (model, rows), (left, right) in zip(models.items(), panels, strict=True):
        shown = rows.values()
        alone = {peer: row for (peer, level), row in rows.items() if level == 1}
        names = [name for name in WORDS if name in alone][::-1]
        times = [alone[name]["p50_seconds"] for name in names]
        words, shades = [WORDS[name] for name in names], [colours[name] for name in names]
        bars = left.barh(words, times, color=shades)
        left.bar_label(bars, [f" {_seconds(value)}" for value in times])
        left.set(xscale="log", xlabel="seconds at the median, one request at a time")
        left.set_xlim(min(times) / 2, max(times) * 4)
        left.set_title(model, loc="left", fontsize=10)
        for name, label in WORDS.items():
            line = sorted(
                (r["level"], r["requests_per_second"]) for r in shown if r["peer"] == name
            )
            if len(line) > 1:
                right.plot(*zip(*line, strict=True), "o-", color=colours[name], label=label)
        right.set(xscale="log", yscale="log", xlabel="requests at once", ylabel="requests a second")
        levels = sorted({row["level"] for row in shown})
        right.set_xticks(levels, map(str, levels))
        right.xaxis.set_ticks([], minor=True)
        right.grid(alpha=0.3)
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
