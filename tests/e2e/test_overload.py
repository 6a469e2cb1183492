"""Ten times the load, and a flood: the short form of ``make overload``."""

import pytest
import uvloop

from loadtests.overload import PROMPT_SECONDS, all_of_it
from tests.kit.stack import Stack

LEAST = 0.5
"""Least goodput: nine tenths were promised for a minute. Of ten seconds, the first answers take a
good part, and this machine has others to serve."""


@pytest.mark.timeout(300)
def test_who_is_admitted_is_answered_and_the_others_hear_at_once(stack: Stack) -> None:
    overloads, floods = uvloop.run(all_of_it(stack.process.pid, stack.url, 10, rounds=1))
    for one in overloads:
        assert one["goodput"] > LEAST * one["best"], one
        assert one["refused median"] < PROMPT_SECONDS, one
        assert set(one["statuses"]) == {"200", "429"}
        assert one["obedient"]
    assert [one["task"] for one in floods] == ["month", "rate"]
    for one in floods:
        assert one["good"] > LEAST, one
