"""Loss curve of a training run, as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot_loss(path: Path, history: list[dict[str, Any]], title: str) -> None:
    """Plot the training loss and, if measured, the share of rows with every decision correct.

    Args:
        path: PNG file to write.
        history: trainer log entries with ``step`` and either ``loss`` or ``eval_*``.
        title: plot title.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    scores = [
        (entry["step"], 100 * entry["eval_all_decided_right"])
        for entry in history
        if "eval_all_decided_right" in entry
    ]
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    axis.plot(*zip(*losses, strict=True), color="tab:blue", label="training loss")
    axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("weighted cross-entropy (nats)", color="tab:blue")
    if scores:
        right = axis.twinx()
        right.plot(*zip(*scores, strict=True), color="tab:orange", marker="o", markersize=3)
        right.set_ylim(0, 100)
        right.set_ylabel("validation: every decision right, %", color="tab:orange")
    axis.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
