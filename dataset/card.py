"""The dataset card: counts and a plot, written from the rows that were just made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def write_card(folder: Path, counts: dict[str, Counter[str]]) -> None:
    """Write ``card.md`` and ``rates.png`` into ``folder``.

    Args:
        folder: made if missing.
        counts: by file, how many rows answer with which rates ("65/5/10/40").
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = ["| file | rows | distinct answers | commonest answer (init/week/set/deload) |"]
    table.append("|---|---|---|---|")
    for name, answers in counts.items():
        answer, often = answers.most_common(1)[0]
        share = often / answers.total()
        table.append(
            f"| `{name}.jsonl` | {answers.total():,} | {len(answers)} | {answer} ({share:.1%}) |"
        )
    text = ["# Dataset card", "", "Written by `make dataset`; the rules are in README.md.", ""]
    text += [*table, "", "![How often each rate occurs](rates.png)", ""]
    (folder / "card.md").write_text("\n".join(text), encoding="utf-8")
    _plot(folder / "rates.png", counts)


def _plot(path: Path, counts: dict[str, Counter[str]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
    shown = {"coach policy": counts["rate/train"], "form (random)": counts["form"]}
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), width_ratios=(8, 2.5, 2.5, 5))
    for place, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for shift, (label, answers) in enumerate(shown.items()):
            shares: Counter[int] = Counter()
            for answer, often in answers.items():
                shares[int(answer.split("/")[place])] += often
            ticks = sorted(shares)
            heights = [100 * shares[tick] / answers.total() for tick in ticks]
            axis.bar([t - 0.9 + 1.8 * shift for t in ticks], heights, width=1.7, label=label)
            axis.set_xticks(ticks)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("percent of 1RM", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of rows, %")
    axes[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
