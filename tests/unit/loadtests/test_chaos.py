"""What the chaos run takes for wrong."""

import json
from typing import Any

import pytest

from loadtests.chaos import (
    BROKE_OFF,
    DEADLINE_MS,
    Load,
    Seen,
    _all_answered,
    _error,
    _stream,
    faults,
)
from serving.gateway.errors import Overloaded
from serving.tasks.registry import TASKS

GOOD: dict[str, Any] = {"fault": "kill -9, core", "broke off": 0, "wrong": [], "longest": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"broke off": 2}, ["kill -9, core: 2 requests broke off"]),
        ({"broke off": 2, "fault": "kill -9, gateway"}, []),
        ({"wrong": ["kg"]}, ["kill -9, core: kg"]),
        ({"longest": DEADLINE_MS / 1000 + 2}, ["kill -9, core: 12.0 s"]),
    ],
)
def test_what_must_not_happen_is_a_fault(change: dict[str, Any], words: list[str]) -> None:
    assert faults([GOOD | change]) == words


def test_an_error_is_well_formed_or_wrong() -> None:
    good = Overloaded("wait", 1).encoded().decode()
    assert _error(good) == ("overloaded", "")
    for bad in ("", "<html>", "{}", '{"error": "x"}', json.dumps({"error": {"code": "x"}})):
        assert _error(bad)[1]
    assert _stream("data: {}\n\ndata: [DONE]\n\n") == ("ok", "")
    assert _stream(f"data: {{}}\n\ndata: {good}\n\n") == ("overloaded", "")
    assert _stream('data: {"choices": []}\n\n')[1]


def test_recovery_is_when_the_last_kind_was_answered() -> None:
    kinds = [*TASKS, "completion"]
    load = Load("", [Seen(kind, 10.0 + n, 1.0, "ok") for n, kind in enumerate(kinds)])
    assert _all_answered(load, 9) == 10 + len(kinds)
    assert not _all_answered(load, 10.5)
    load.seen[-1].said = BROKE_OFF
    assert not _all_answered(load, 9)
