"""The semantic check that every Task 1 answer must pass before it is sent.

It parses the plan text with its own patterns and compares it with the rates. It deliberately shares
no code with the renderer in ``answer``, so that it can detect the renderer's errors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

RULES = (
    "keys", "program", "rates", "layout", "repetitions", "percent", "too_heavy", "deload"
)  # fmt: skip
"""All rules that the check can report."""
_PROGRAM = "5/3/1 프로그램"
_RATES = ("init_weight_rate", "increase_rate_week", "increase_rate_set", "deloading_rate")
_SETS = "".join(rf"SET{place} (\d{{1,3}})%x(\d{{1,2}}\+?)\n" for place in (1, 2, 3))
_PLAN = re.compile("\n".join(f"Week{week}\n{_SETS}" for week in (1, 2, 3, 4)))
_REPETITIONS = ("5", "5", "5+", "3", "3", "3+", "5", "3", "1+", "5", "5", "5")


def check_rate(answer: Mapping[str, Any]) -> list[str]:
    """Return the names of the rules that ``answer`` violates; empty if it is valid.

    Args:
        answer: a Task 1 answer with its six keys.

    Returns:
        A subset of ``RULES``.
    """
    if set(answer) != {"program", *_RATES, "weekly_weight_increase_plan"}:
        return ["keys"]
    if answer["program"] != _PROGRAM:
        return ["program"]
    rates = [answer[name] for name in _RATES]
    if not all(type(rate) is int and rate > 0 for rate in rates):
        return ["rates"]
    init, week_rate, set_rate, deload = rates

    plan = _PLAN.fullmatch(str(answer["weekly_weight_increase_plan"]))
    if plan is None:
        return ["layout"]
    broken = []
    percents = [int(percent) for percent in plan.groups()[::2]]
    expected: list[int] = []
    for first in (init, init + week_rate, init + 2 * week_rate, deload):
        expected += [first, first + set_rate, first + 2 * set_rate]
    broken += _heavy(percents)
    if percents != expected:
        broken.append("percent")
    if plan.groups()[1::2] != _REPETITIONS:
        broken.append("repetitions")
    return broken


def _heavy(percents: Sequence[int]) -> list[str]:
    """Return the names of the rules on weight that a month violates.

    Args:
        percents: of its twelve sets, in order.
    """
    last_1, last_2, last_3, last_deload = percents[2::3]
    broken = []
    if last_1 > 85 or last_2 > 90 or last_3 > 95:
        broken.append("too_heavy")
    if last_deload > last_1 + 5 or (percents[0] >= 55 and last_deload >= last_1):
        broken.append("deload")
    return broken
