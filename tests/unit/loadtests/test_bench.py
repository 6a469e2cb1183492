"""What the benchmark makes of its figures, and what ends it with an error."""

from typing import Any

import pytest

from loadtests.bench.__main__ import PLANS, faults, main
from loadtests.bench.peers import ENGINES, SERVICES, WORDS
from loadtests.bench.tables import kept
from loadtests.report import PAGE


def row(peer: str, *rates: float, wrong: int = 0) -> dict[str, Any]:
    return {
        "peer": peer,
        "requests_per_second_by_round": list(rates),
        "requests": 100,
        "correct": 100 - wrong,
    }


def test_the_share_that_is_left_is_taken_round_by_round() -> None:
    """A machine that slows down slows both: the share is of the same minute."""
    rows = [row("ours", 90, 45, 30), row("engine", 100, 50, 25), row("vllm", 1, wrong=7)]
    assert kept(rows) == 0.9
    assert list(faults(rows)) == []
    assert kept(rows[1:]) is None


def test_a_wrong_answer_of_ours_and_a_slow_gateway_are_faults() -> None:
    rows = [row("ours", 80, 80, wrong=1), row("engine", 100, 100)]
    wrong, slow = faults(rows)
    assert wrong == "ours: 1 answers were wrong"
    assert "leaves 0.80" in slow


def test_plans_name_what_there_is() -> None:
    for plan in PLANS.values():
        for group in plan.groups.values():
            assert set(group.peers) <= set(WORDS)
            assert not set(group.peers) & set(ENGINES) or "ours" in group.peers
            assert set(group.only) <= set(group.peers)
    assert set(SERVICES) | set(ENGINES) <= set(WORDS)


def test_every_result_has_its_place_on_the_page() -> None:
    """Or hours of measuring would end in an error."""
    page = PAGE.read_text(encoding="utf-8")
    names = [f"bench-{name}-{group}" for name, plan in PLANS.items() for group in plan.groups]
    for name in [*names, "bench-gateway", "load-saturate", "scores"]:
        assert page.count(f"<!-- {name} -->") == page.count(f"<!-- end of {name} -->") == 1, name


def test_a_group_that_no_plan_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--plan", "demo", "--group", "nonsense"])
    with pytest.raises(SystemExit):
        main()
    assert "nonsense is none of arithmetic, cost" in capsys.readouterr().err
