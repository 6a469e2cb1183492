"""Is an answer right? The semantic check that every answer passes before it leaves.

It reads the plan's text back with its own patterns and compares it with the rates. It deliberately
shares no code with the renderer in ``rate``: an error there would otherwise agree with itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from serving.contract.profile import Profile

RULES = ("keys", "program", "rates", "layout", "repetitions", "percent", "over_100")
"""Every rule that the check can find broken."""
_PROGRAM = "5/3/1 프로그램"
_RATES = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
_SET = re.compile(r"SET(\d) (\d{1,3})%x(\d{1,2}\+?)")
_REPETITIONS = {"Week1": "5 5 5+", "Week2": "3 3 3+", "Week3": "5 3 1+", "Week4": "5 5 5"}


def check_rate(request: Profile, answer: Mapping[str, Any]) -> list[str]:
    """The rules that ``answer`` breaks, by name; empty if it is right.

    Args:
        request: the profile it answers (any progression is legal for any profile).
        answer: the six keys of a Task 1 answer.

    Returns:
        Some of ``RULES``.
    """
    if set(answer) != {"program", *_RATES, "weekly_weight_increase_plan"}:
        return ["keys"]
    if answer["program"] != _PROGRAM:
        return ["program"]
    rates = [answer[name] for name in _RATES]
    if not all(type(rate) is int and rate > 0 for rate in rates):
        return ["rates"]
    init, week_rate, set_rate, deload = rates

    plan = str(answer["weekly_weight_increase_plan"])
    blocks = plan.removesuffix("\n").split("\n\n")
    if not plan.endswith("\n") or [block.split("\n")[0] for block in blocks] != list(_REPETITIONS):
        return ["layout"]
    broken = set()
    for number, block in enumerate(blocks):
        title, *lines = block.split("\n")
        matches = [_SET.fullmatch(line) for line in lines]
        sets = [match.groups() for match in matches if match]
        if len(sets) != len(lines) or [s[0] for s in sets] != ["1", "2", "3"]:
            return ["layout"]
        if " ".join(s[2] for s in sets) != _REPETITIONS[title]:
            broken.add("repetitions")
        first = deload if title == "Week4" else init + week_rate * number
        percents = [int(s[1]) for s in sets]
        if percents != [first, first + set_rate, first + 2 * set_rate]:
            broken.add("percent")
        if max(percents) > 100:
            broken.add("over_100")
    return sorted(broken)
