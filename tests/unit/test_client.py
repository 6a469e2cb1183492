"""The command line client, against the gateway with a fake engine."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from loadtests.service import free_port
from serving.client import app
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
