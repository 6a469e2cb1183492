"""Loss curve of a training run, as a PNG."""

from pathlib import Path
from typing import Any


def plot_loss(path: Path, history: list[dict[str, Any]], title: str) -> None:
    """Plot the training loss and, if measured, the share of rows with every decision correct.

    Args:
        path: PNG file to write.
        history: trainer log entries with ``step`` and either ``loss`` or ``eval_*``.
        title: plot title.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    scores = [
        (entry["step"], 100 * entry["eval_all_decided_right"])
        for entry in history
        if "eval_all_decided_right" in entry
    ]
    figure = Figure(figsize=(6.4, 3.4), layout="tight")
    axis = figure.subplots()
    axis.plot(*zip(*losses, strict=True), color="tab:blue", label="training loss")
    axis.set(title=title, xlabel="step", yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("weighted cross-entropy (nats)", color="tab:blue")
    if scores:
        right = axis.twinx()
        right.plot(*zip(*scores, strict=True), color="tab:orange", marker="o", markersize=3)
        right.set_ylim(0, 103)  # a point at 100 % is not cut
        right.set_ylabel("validation: every decision right, %", color="tab:orange")
    figure.savefig(path, dpi=110)
