"""Oracle for Task 1 answers, written only from the product page.

It shares no code with the renderer or the gateway's check: it computes all twelve sets from the
rates and compares whole lines.
"""

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
    found += [f"{key} is no integer" for key in KEYS[1:5] if type(answer[key]) is not int]
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
            if not 0 < percent <= 100:
                found.append(f"week {week} set {index} is {percent} %")
            expected.append(f"SET{index} {percent}%x{COUNTS[week].split()[index - 1]}")
        expected.append("")
    if lines != expected:
        found.append(f"plan is {lines}, the rates give {expected}")
    return found
