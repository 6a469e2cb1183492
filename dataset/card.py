"""Dataset card: row counts and a plot, computed from the rows just generated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Decided = Sequence[Mapping[str, Any]]
PLOT = "answers.png"


def write_card(folder: Path, files: Mapping[str, Decided]) -> None:
    """Write ``card.md`` and its plot into ``folder``.

    Args:
        folder: output folder; created if missing.
        files: decisions of each row, keyed by file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Dataset card", "", "Written by `make dataset`; the rules are in README.md.", ""]
    text += [
        "| file | rows | distinct answers | the commonest's share | answers that training has |",
        "|---|---|---|---|---|",
    ]
    counts = {name: Counter(tuple(v.items()) for v in rows) for name, rows in files.items()}
    for name, answers in counts.items():
        share = answers.most_common(1)[0][1] / answers.total()
        known = counts.get(f"{name.partition('/')[0]}/train", answers)
        seen = sum(number for answer, number in answers.items() if answer in known)
        text.append(
            f"| `{name}.jsonl` | {answers.total():,} | {len(answers):,} | {share:.1%} | "
            f"{seen / answers.total():.1%} |"
        )
    text += ["", f"![How often each answer occurs, the commonest first]({PLOT})"]
    (folder / "card.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    _plot(folder / PLOT, counts)


def _plot(path: Path, counts: Mapping[str, Counter[Any]]) -> None:
    """Plot rows per answer, most common first, with one line per training file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, answers in counts.items():
        if name.endswith("train"):
            rows = sorted(answers.values(), reverse=True)
            axes.plot(range(1, len(rows) + 1), rows, label=f"{name}.jsonl")
    axes.set(xscale="log", yscale="log", xlabel="answer, by rank", ylabel="rows with this answer")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
