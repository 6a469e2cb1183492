"""The dataset card: counts and plots, written from the rows that were just made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.contract.exercises import CATALOGUE, CATEGORIES
from serving.contract.profile import LIFTS
from serving.contract.rate import RATES

Decided = Sequence[Mapping[str, Any]]


def write_card(folder: Path, files: Mapping[str, Decided]) -> None:
    """Write ``card.md`` and its plots into ``folder``.

    Args:
        folder: made if missing.
        files: by file name, the decisions of each row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Dataset card", "", "Written by `make dataset`; the rules are in README.md.", ""]
    text += [
        "| file | rows | distinct answers | the commonest answer's share |",
        "|---|---|---|---|",
    ]
    for name, rows in files.items():
        answers = Counter(tuple(values.items()) for values in rows)
        share = answers.most_common(1)[0][1] / len(rows)
        text.append(f"| `{name}.jsonl` | {len(rows):,} | {len(answers):,} | {share:.1%} |")
    plots: dict[str, tuple[str, Callable[[Path, Mapping[str, Decided]], None]]] = {
        "rates.png": ("How often each rate occurs", _plot_rates),
        "assistance.png": ("How often each exercise occurs", _plot_assistance),
    }
    for file, (title, plot) in plots.items():
        text += ["", f"![{title}]({file})"]
        plot(folder / file, files)
    (folder / "card.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _plot_rates(path: Path, files: Mapping[str, Decided]) -> None:
    plt = _pyplot()
    form = [values for values in files["form"] if RATES[0] in values]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), width_ratios=(8, 2.5, 2.5, 5))
    for axis, name in zip(axes, RATES, strict=True):
        for shift, (label, rows) in enumerate(
            {"coach policy": files["rate/train"], "form (random)": form}.items()
        ):
            counts = Counter(values[name] for values in rows)
            ticks = sorted(counts)
            heights = [100 * counts[tick] / len(rows) for tick in ticks]
            axis.bar([t - 0.9 + 1.8 * shift for t in ticks], heights, width=1.7, label=label)
            axis.set_xticks(ticks)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("percent of 1RM", fontsize=9)
    axes[0].set_ylabel("share of rows, %")
    axes[0].legend(frameon=False, fontsize=9)
    _save(path, figure)


def _plot_assistance(path: Path, files: Mapping[str, Decided]) -> None:
    """Each exercise's share of its category's slots on coached days. Numbered, as plots are drawn
    with a font without Hangul; the numbers are the catalogue's."""
    plt = _pyplot()
    rows = files["month/train"]
    figure, axes = plt.subplots(1, len(CATEGORIES), figsize=(13, 3.4), sharey=True)
    numbers = {name: number for number, name in enumerate(CATALOGUE, 1)}
    for axis, category in zip(axes, CATEGORIES, strict=True):
        counts = Counter(values[f"{lift}.{category}.0"] for values in rows for lift in LIFTS)
        ticks = [numbers[e.name] for e in CATALOGUE.values() if e.category == category]
        names = list(CATALOGUE)
        heights = [100 * counts[names[tick - 1]] / (len(rows) * len(LIFTS)) for tick in ticks]
        axis.bar(ticks, heights, color="tab:blue")
        axis.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
        axis.set_title(f"{category} (empty: {100 - sum(heights):.0f} %)", fontsize=10)
        axis.set_xlabel("exercise, number in the catalogue", fontsize=9)
    axes[0].set_ylabel("share of days, %")
    _save(path, figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(path: Path, figure: Any) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    _pyplot().close(figure)
