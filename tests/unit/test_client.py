"""The command line client, against the gateway with a fake engine."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from loadtests.service import free_port
from serving.client.commands import app
from serving.gateway.app import create_app
from serving.gateway.errors import EngineUnavailable
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD, GOOD_MONTH, good
from tests.kit.waiting import wait_for
from tests.unit.gateway.fake_engine import FakeEngine, factory

PROFILE = ("--experience=1", "--sex=male", "--purpose=1", "--bench=40", "--squat=50",
           "--deadlift=55", "--press=30")  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def url(engine: FakeEngine) -> Iterator[str]:
    ready: list[bool] = []
    settings = GatewaySettings(probe_interval_seconds=0.01)
    gateway = create_app(settings, factory(engine), lambda: ready.append(True))
    server = uvicorn.Server(uvicorn.Config(gateway, port=free_port(), log_config=None))
    thread = Thread(target=server.run)
    thread.start()
    wait_for(lambda: ready)
    yield f"http://127.0.0.1:{server.config.port}"
    server.should_exit = True
    thread.join()


def run(url: str, *arguments: str, text: str | None = None, columns: int = 120) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(app, ["--url", url, *arguments], input=text)


def test_options_and_a_file_ask_the_same(url: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(json.dumps(GOOD))
    asked = run(url, "rate", "--json", *PROFILE)
    assert asked.exit_code == 0, asked.stderr
    assert (
        run(url, "rate", "--json", "--request", str(tmp_path / "request.json")).stdout
        == asked.stdout
    )
    assert (
        run(url, "rate", "--json", "--request", "-", text=json.dumps(GOOD)).stdout == asked.stdout
    )
    assert set(json.loads(asked.stdout)) >= {"program", "init_weight_rate"}
    heavier = run(
        url,
        "month",
        "--json",
        "--days=2",
        "--press=35",
        "--request",
        "-",
        text=json.dumps(GOOD_MONTH),
    )
    assert json.loads(heavier.stdout)["days_per_week"] == 2


def test_tables_are_for_people(url: str) -> None:
    rates = run(url, "rate", *PROFILE)
    assert "Week4" in rates.stdout and "%x" in rates.stdout
    given = rates.stdout.splitlines()[-1].split()
    month = run(url, "month", *PROFILE, "--days=3", *given)
    assert month.exit_code == 0, month.stderr
    assert "데드리프트" in month.stdout
    whole = run(url, "month", *PROFILE, "--days=3", *given, "--json").stdout
    assert month.stdout.count("kg × ") == whole.count('"kg"') > 4 * 12
    calendar = run(url, "month", *PROFILE, "--days=3", "--calendar=2026-12-07")
    assert calendar.stdout.count("BEGIN:VEVENT") == 12
    after = run(url, "next", *PROFILE, "--rates=55,10,5,50", "--reached=8,5,3,0")
    assert after.exit_code == 0, after.stderr
    assert "27" in after.stdout and "reset" in after.stdout
    answer = run(url, "next", "--json", "--request", "-", text=json.dumps(good("next")))
    assert set(json.loads(answer.stdout)) == {"profile", "lifts"}


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_nothing_is_left_out_on_a_narrow_terminal(url: str, columns: int) -> None:
    shown = run(url, "month", *PROFILE, "--days=3", columns=columns).stdout
    assert "…" not in shown
    whole = json.loads(run(url, "month", *PROFILE, "--days=3", "--json").stdout)
    names = [
        one["name"] for week in whole["weeks"] for day in week["days"] for one in day["assistance"]
    ]
    letters = Counter("".join(names).replace(" ", ""))
    assert letters <= Counter(shown)


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("rate", *PROFILE, "--experience=9"), None, "experience cannot be 9; it must be"),
        (("rate",), None, "experience is missing"),
        (("rate", *PROFILE, "--sex=other"), None, 'gender cannot be "other"'),
        (("month", *PROFILE, "--days=3", "--calendar=soon"), None, "start"),
        (("month", *PROFILE, "--rates=55,10"), None, "--rates cannot be '55,10'; it must be 4"),
        (("month", *PROFILE, "--rates=a,b,c,d"), None, "--rates cannot be"),
        (("next", *PROFILE, "--rates=55,10,5,50"), None, "repetitions is missing"),
        (("rate", "--request", "-"), "{", "--request -: "),
        (("rate", "--request", "-"), "[]", "no JSON object"),
        (("rate", "--request", "/nowhere.json"), None, "/nowhere.json"),
    ],
)
def test_a_request_at_fault_is_one_line_and_exit_code_2(
    url: str, arguments: tuple[str, ...], text: str | None, words: str
) -> None:
    result = run(url, *arguments, text=text)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("routine531: ") and words in line


def test_a_busy_service_is_asked_again_as_long_as_allowed(url: str, engine: FakeEngine) -> None:
    engine.losses = [EngineUnavailable("down")] * 3
    assert run(url, "rate", *PROFILE).exit_code == 0
    assert not engine.losses
    engine.losses = [EngineUnavailable("down")] * 3
    at_once = run(url, "--wait=0", "rate", *PROFILE)
    engine.losses = []
    assert at_once.exit_code == 3
    assert "down" in at_once.stderr


def test_a_service_that_is_not_there_is_exit_code_3() -> None:
    result = run(f"http://127.0.0.1:{free_port()}", "rate", *PROFILE)
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    assert run("nowhere", "rate", *PROFILE).exit_code in (2, 3)


def batch(url: str, folder: Path, lines: Sequence[object], *options: str) -> Result:
    """Ask lines, or what is written instead of them, for a file of answers."""
    (folder / "in.jsonl").write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    )
    before, after = options[:1], options[1:]
    files = (str(folder / "in.jsonl"), str(folder / "out.jsonl"))
    return run(url, *before, "batch", *files, *after)


def answers(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "out.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(one["custom_id"], one["response"]["status_code"]) for one in found]


def test_a_batch_goes_on_where_it_stopped(url: str, engine: FakeEngine, tmp_path: Path) -> None:
    lines = [*[GOOD] * 20, {"custom_id": "mine", "method": "POST", "url": "/gen/routine/rate",
             "body": GOOD}]  # fmt: skip
    asked = batch(url, tmp_path, lines)
    assert asked.exit_code == 0, asked.stderr
    assert asked.stderr == "routine531: 21 answered, 0 at fault\n"
    names = [*(str(number) for number in range(1, 21)), "mine"]
    assert sorted(answers(tmp_path)) == sorted((name, 200) for name in names)

    out = tmp_path / "out.jsonl"
    whole = out.read_bytes()
    for kept in (0, 1, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:kept])
        engine.calls.clear()
        assert batch(url, tmp_path, lines).exit_code == 0
        assert len(engine.calls) == 21 - whole[:kept].count(b"\n")
        assert sorted(answers(tmp_path)) == sorted((name, 200) for name in names)


def test_a_batch_of_months_is_of_that_task(url: str, tmp_path: Path) -> None:
    assert batch(url, tmp_path, [GOOD_MONTH], "--wait=5", "--task=month").exit_code == 0
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert len(json.loads(line)["response"]["body"]["weeks"]) == 4


def test_what_the_service_is_to_blame_for_is_asked_again(
    url: str, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.losses = [EngineUnavailable("down")] * 3
    assert batch(url, tmp_path, [GOOD] * 4).exit_code == 0
    assert sorted(answers(tmp_path)) == [(str(number), 200) for number in range(1, 5)]
    (tmp_path / "out.jsonl").unlink()
    engine.text = "no rate"
    left = batch(url, tmp_path, [GOOD] * 4, "--wait=0")
    engine.text = None
    assert left.exit_code == 3
    assert "the engine violated the constraint" in left.stderr
    assert "4 lines are left: run it again" in left.stderr
    assert answers(tmp_path) == []
    assert batch(url, tmp_path, [GOOD] * 4).exit_code == 0


def test_lines_at_fault_are_told_and_the_others_answered(url: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second run asks nothing
        result = batch(url, tmp_path, [GOOD, {**GOOD, "experience": 9}, "", GOOD])
        assert result.exit_code == 2
        assert result.stderr.startswith("routine531: 2 answered, 1 at fault\n")
        assert sorted(answers(tmp_path)) == [("1", 200), ("2", 422), ("4", 200)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([GOOD, "{"], "in.jsonl, line 2 is no JSON object"),
        (["[]"], "in.jsonl, line 1 is no JSON object"),
        (['{"a": "\\ud800"}'], "in.jsonl, line 1 is no JSON object"),
        ([{"custom_id": 1, "body": GOOD}], "line 1: custom_id must be a text"),
        ([{"body": GOOD}], "line 1: custom_id must be a text"),
        ([GOOD, {"custom_id": "1", "body": GOOD}], "line 2: an earlier line has custom_id '1' too"),
        ([], "in.jsonl has no lines"),
    ],
)
def test_a_file_that_cannot_be_a_batch_asks_nothing(
    url: str, engine: FakeEngine, tmp_path: Path, lines: list[object], words: str
) -> None:
    engine.calls.clear()
    result = batch(url, tmp_path, lines)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not engine.calls
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("text", ["notes", "notes\n", '{"a": 1}\n', json.dumps(GOOD)])
def test_a_file_of_something_else_is_left_alone(url: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "out.jsonl").write_text(text)
    result = batch(url, tmp_path, [GOOD])
    assert result.exit_code == 2
    assert "name another" in result.stderr
    assert (tmp_path / "out.jsonl").read_text() == text


def test_a_batch_for_nobody_ends(tmp_path: Path) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "nowhere"):
        result = batch(url, tmp_path, [GOOD], "--wait=0")
        assert result.exit_code == 3
        assert "cannot be reached" in result.stderr and "1 lines are left" in result.stderr
    assert batch("http://x:port", tmp_path, [GOOD]).exit_code == 2
