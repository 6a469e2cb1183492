"""Oracle for Task 1 answers, written only from the product page.

It shares no code with the renderer or the gateway's check: it computes all twelve sets from the
rates and compares whole lines.
"""

from collections.abc import Sequence
from typing import Any

KEYS = [
    "program",
    "init_weight_rate",
    "increase_rate_week",
    "increase_rate_set",
    "deloading_rate",
    "weekly_weight_increase_plan",
]
COUNTS = {1: "5 5 5+", 2: "3 3 3+", 3: "5 3 1+", 4: "5 5 5"}


def faults(answer: dict[str, Any]) -> list[str]:
    """Return every fault of ``answer``; the list is empty if the progression is correct."""
    if list(answer) != KEYS:
        return [f"keys are {list(answer)}"]
    found = [] if answer["program"] == "5/3/1 프로그램" else [f"program is {answer['program']}"]
    for key in KEYS[1:5]:
        if type(answer[key]) is not int or answer[key] < 1:
            found.append(f"{key} is {answer[key]!r}")
    lines = answer["weekly_weight_increase_plan"].split("\n")
    expected: list[str] = []
    for week in (1, 2, 3, 4):
        expected.append(f"Week{week}")
        for index in (1, 2, 3):
            if week == 4:
                percent = answer["deloading_rate"]
            else:
                percent = answer["init_weight_rate"] + answer["increase_rate_week"] * (week - 1)
            percent += answer["increase_rate_set"] * (index - 1)
            expected.append(f"SET{index} {percent}%x{COUNTS[week].split()[index - 1]}")
        expected.append("")
    if lines != expected:
        found.append(f"plan is {lines}, the rates give {expected}")
    return found + heavy([answer[key] for key in KEYS[1:5]])


def heavy(rates: Sequence[Any]) -> list[str]:
    """Return what is too heavy in a month of these four rates, in the answer's order."""
    init, week, step, deload = rates
    last = [init + week * number + 2 * step for number in range(3)]
    most = {1: 85, 2: 90, 3: 95}
    found = [
        f"week {week} ends at {percent} %"
        for week, percent in enumerate(last, 1)
        if percent > most[week]
    ]
    top = deload + 2 * step
    if top > last[0] + 5 or (init >= 55 and top >= last[0]):
        found.append(f"a deload of {top} % after a week of {last[0]} %")
    return found
