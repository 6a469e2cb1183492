"""An adapter's model card, ``README.md``, with the numbers and a picture of its evaluation."""

from pathlib import Path
from typing import Any

from finetune.evaluation import Evaluation
from loadtests.report import markdown
from serving.tasks.base import Task

PLOT, NUMBERS, CARD = "evaluation.png", "evaluation.json", "README.md"
SHOWN_DECISIONS = 10


def write_card(folder: Path, task: Task[Any], found: Evaluation) -> None:
    """Write the card.

    Args:
        folder: the adapter's.
        task: which it is for.
        found: its evaluation.
    """
    (folder / NUMBERS).write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_text(task, found), encoding="utf-8")
    _plot(folder / PLOT, found)


def _text(task: Task[Any], found: Evaluation) -> str:
    base, (equal, compared) = found.setting["base"], found.parity
    setting = ", ".join(f"{name} {value}" for name, value in found.setting.items())
    return f"""---
language: ko
license: apache-2.0
library_name: peft
pipeline_tag: text-generation
tags: [lora]
---
# {task.name}: {task.summary}

A LoRA adapter of {base}. It decides what the rest of the answer follows from; ask it through the
gateway, which builds its prompt and constrains its output.

{_shares(found)}

"Right" is exactly the coach's decision. The engine's greedy tokens, without constraint, are PEFT's
for {equal} of {compared} prompts.

{_decisions(found)}

{_confusions(found)}

The probability that the model gives to an answer's decisions is off by
{found.calibration_error:.1%} on average (expected calibration error).

![Calibration, and the decisions least often right]({PLOT})
![Loss and validation score](loss.png)

Written by `finetune.evaluate`: {setting}.
"""


def _shares(found: Evaluation) -> str:
    head = ("held-out requests", "number", "valid", f"each {found.part} right", "answers right")
    cells = []
    for name, share in found.shares.items():
        shares = (f"{one:.1%}" for one in (share.valid, share.parts, share.exact))
        cells.append((name, f"{share.requests:,}", *shares))
    return markdown(head, cells)


def _decisions(found: Evaluation) -> str:
    cells = [(f"`{n}`", f"{share:.1%}") for n, share in found.decisions.items()]
    rest = len(cells) - SHOWN_DECISIONS
    words = f"\n\n{rest} more are right at least as often." if rest > 0 else ""
    return markdown(("decision, usual lifters", "right"), cells[:SHOWN_DECISIONS]) + words


def _confusions(found: Evaluation) -> str:
    if not found.confusions:
        return "No decision was another than the coach's."
    cells = [(f"`{c.decision}`", c.wanted, c.given, str(c.times)) for c in found.confusions]
    return markdown(("confused most often", "coach", "adapter", "times"), cells)


def _plot(path: Path, found: Evaluation) -> None:
    """Plot calibration, and a confusion matrix for each decision that has one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 + 3.2 * len(found.matrices), 3.8), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(found.matrices), squeeze=False)[0]
    first.plot([0, 100], [0, 100], color="lightgray", linestyle="--")
    points = [(100 * one.confidence, 100 * one.exact, one.answers) for one in found.calibration]
    first.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o")
    for number, (x, y, answers) in enumerate(points):
        below = (0, -12 - 9 * (number % 3))  # neighbours do not overlap
        first.annotate(
            f"{answers:,}", (x, y), below, textcoords="offset points", ha="center", fontsize=8
        )
    first.set(
        title="answers by confidence, and their number",
        xlabel="probability that the model gives its decisions, %",
        ylabel="answers that are the coach's, %",
        xlim=(-3, 106),
        ylim=(-10, 106),
    )
    first.title.set_size(9)
    for axis, (name, counts) in zip(others, found.matrices.items(), strict=True):
        values = sorted({value for pair in counts for value in pair[:2]})
        places = {value: place for place, value in enumerate(values)}
        for wanted, given, times in counts:
            color = "tab:blue" if wanted == given else "tab:red"
            at = (places[given], places[wanted])
            axis.annotate(f"{times:,}", at, ha="center", va="center", color=color, fontsize=7)
        axis.set_xticks(range(len(values)), values, fontsize=7)
        axis.set_yticks(range(len(values)), values, fontsize=7)
        ends = (-0.6, len(values) - 0.4)
        axis.set(title=name, xlabel="adapter", ylabel="coach", xlim=ends, ylim=ends)
        axis.title.set_size(9)
    figure.savefig(path, dpi=110)
