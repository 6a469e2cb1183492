"""The load test's options, counts and limits. Locust itself runs in tests/e2e/test_load.py."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import pytest

from loadtests import load
from loadtests.plan import SHAPES, Plan, stored
from loadtests.stack import free_port

PLAN = Plan(
    shape="stairs",
    level=16,
    seconds=80,
    is_open=False,
    mix={"rate": 1},
    adapters={"rate": 1},
    leave=0.0,
    deadline_seconds=2.0,
    seed=1,
)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--shape", "mountain"], "mountain"),
        (["--level", "-3"], "-3"),
        (["--level", "0"], "above 0"),
        (["--level", "many"], "many"),
        (["--seconds", "-1"], "-1"),
        (["--seconds", "nan"], "nan"),
        (["--deadline", "0"], "above 0"),
        (["--leave", "1.5"], "share"),
        (["--mix", "rate"], "rate=3,month=1"),
        (["--mix", "poem=1"], "rate, month, completions"),
        (["--mix", "rate=-1"], "0 or more"),
        (["--mix", "rate=0,month=0"], "not all 0"),
        (["--adapters", "rate=x"], "rate=3,month=1"),
        (["--nonsense"], "--nonsense"),
        (["--url", "nowhere"], "nowhere"),
        (["--url", f"http://127.0.0.1:{free_port()}"], "make serve"),
    ],
)
def test_bad_options_get_one_line_and_exit_code_2(
    options: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["load", *options])
    with pytest.raises(SystemExit) as ended:
        load.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert word in said


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_time_and_reaches_no_more_than_its_level(shape: str) -> None:
    assert sum(stage.time for stage in SHAPES[shape]) == pytest.approx(1)
    assert all(0 < stage.load <= 1 for stage in SHAPES[shape])


def test_a_plan_knows_its_stage_and_travels_by_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [PLAN.stage(seconds) for seconds in (0, 9.9, 10, 79.9, 80, 1e6)] == [0, 0, 1, 7, 8, 8]
    for name, value in PLAN.store().items():
        monkeypatch.setenv(name, value)
    assert stored() == PLAN


def counted(**stages: dict[str, int]) -> list[dict[str, Any]]:
    """Stages of ``PLAN`` in which this was counted: ``s0={"good": 10, "ms 20": 10}``."""
    counts: Counter[str] = Counter()
    for name, own in stages.items():
        counts.update({f"{name[1:]}|rate|{what}": number for what, number in own.items()})
    return load.stages(PLAN, counts)


def test_stages_have_goodput_and_percentiles() -> None:
    first, second, *_ = counted(
        s0={
            "good": 100,
            "late": 1,
            "left": 2,
            "ms 10": 60,
            "ms 30": 39,
            "ms 3000": 2,
            "tokens": 50,
        },
        s1={"good": 50, "ms 7": 50, "told to wait": 3, "tokens": 50},
    )
    assert (first["load"], second["load"]) == (2, 4)
    assert (first["goodput"], first["late"], first["left"]) == (10, 1, 2)
    assert [first[f"p{p}_ms"] for p in load.PERCENTILES] == [10, 30, 3000]
    assert (second["p99_ms"], second["told_to_wait"], second["tokens_per_second"]) == (7, 3, 5)


def test_the_knee_is_where_more_load_buys_little() -> None:
    found = counted(
        s0={"good": 100, "ms 10": 100},
        s1={"good": 190, "ms 11": 190},
        s2={"good": 210, "ms 30": 210},
    )
    assert load.knee(found) == 1
    assert load.knee(counted()) is None


@pytest.mark.parametrize(
    ("seen", "limits", "word"),
    [
        ({"good": 100, "ms 10": 100}, {}, None),
        ({}, {}, "nothing"),
        ({"good": 99, "wrong": 1, "ms 10": 100}, {}, "1 answers were wrong"),
        ({"good": 99, "broke": 1, "ms 10": 99}, {}, "1 requests broke the load test itself"),
        ({"good": 97, "failed": 3, "ms 10": 97}, {}, "3 of 100 requests failed"),
        ({"good": 97, "failed": 3, "ms 10": 97}, {"max_failed": 0.05}, None),
        ({"good": 90, "late": 10, "ms 10": 100}, {}, "only 90 of 100"),
        ({"good": 90, "late": 10, "ms 10": 100}, {"min_good": 0.9}, None),
        ({"good": 100, "ms 10": 94, "ms 70": 6}, {"max_p95": 60.0}, "p95 is 70 ms"),
    ],
)
def test_limits(seen: dict[str, int], limits: dict[str, float], word: str | None) -> None:
    options = argparse.Namespace(**vars(load.parser().parse_args([])) | limits)
    broken = load.broken_limits(counted(s7=seen), options)
    assert (broken == []) if word is None else (len(broken) == 1 and word in broken[0])
