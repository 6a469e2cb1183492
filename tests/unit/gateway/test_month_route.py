"""POST /gen/routine/month: two tasks in one request, and three forms of the answer."""

import json
from datetime import date
from random import Random
from typing import Any

import httpx
import pytest
from icalendar import Calendar
from starlette.testclient import TestClient

from loadtests.bench.upstream import ADAPTER_SEED
from serving.gateway.errors import EngineUnavailable
from serving.tasks.month import answer as month
from serving.tasks.profile import LIFTS
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.kit.bad_requests import GOOD, GOOD_MONTH
from tests.kit.oracle_month import month_faults
from tests.unit.gateway.fake_engine import FakeEngine, wait_ready

MONTH = "/gen/routine/month"
BARE: dict[str, Any] = {**GOOD, "days_per_week": 3}
MARKDOWN, CALENDAR = {"accept": "text/markdown"}, {"accept": "text/calendar"}
LAST_START = date(2100, 12, 31)


@pytest.mark.parametrize("body", [GOOD_MONTH, BARE, {**BARE, "basis": "tm", "plate_step": 5}])
def test_a_month_is_answered_right(body: dict[str, Any], client: TestClient) -> None:
    response = client.post(MONTH, json=body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert month_faults(body, response.json()) == []


def test_without_rates_task_1_is_asked_first(client: TestClient, engine: FakeEngine) -> None:
    wait_ready(client)
    engine.calls.clear()
    answer = client.post(MONTH, json=BARE).json()
    first, second = engine.calls
    assert (first.model, second.model) == ("rate", "month")
    assert (
        first.prompt == TASKS["rate"].question(TASKS["month"].examples[0]).prompt + rate.OUTPUT.head
    )
    assert answer["rates"] == rate.OUTPUT.sample(Random(ADAPTER_SEED))
    complete = month.MonthRequest.model_validate({**BARE, "rates": answer["rates"]})
    assert second.prompt.startswith(TASKS["month"].question(complete).prompt)
    engine.calls.clear()
    assert client.post(MONTH, json=complete.model_dump()).json() == answer
    assert [call.model for call in engine.calls] == ["month"]


def test_the_engine_failing_between_the_two_tasks_is_an_error_in_the_one_shape(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.error = EngineUnavailable("down")
    response = client.post(MONTH, json=BARE)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"


def test_every_constraint_is_compiled_before_ready(client: TestClient, engine: FakeEngine) -> None:
    """The engine compiles a constraint when it first meets it: not in a user's request."""
    wait_ready(client)
    asked = {call.regex for call in engine.calls}
    assert asked >= {o.decided_regex for task in TASKS.values() for o in task.outputs()}


def test_markdown_is_a_table_a_week_with_every_set_and_exercise(client: TestClient) -> None:
    answer = client.post(MONTH, json=GOOD_MONTH).json()
    response = client.post(MONTH, json=GOOD_MONTH, headers=MARKDOWN)
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    tables = response.text.split("## ")[1:]
    assert [table.split("\n")[0] for table in tables] == [
        "1주차",
        "2주차",
        "3주차",
        "4주차, 디로딩",
    ]
    for table, week in zip(tables, answer["weeks"], strict=True):
        rows = [line for line in table.split("\n") if "kg ×" in line]
        mains = [main for day in week["days"] for main in day["lifts"]]
        for row, main in zip(rows, mains, strict=True):
            assert LIFTS[main["lift"]] in row
            for one in main["warm_up"] + main["sets"]:
                mark = "+" if one["amrap"] else ""
                assert f"{one['kg']:g} kg × {one['repetitions']}{mark} ({one['percent']}%)" in row
        for day in week["days"]:
            (row,) = (row for row in rows if f"{day['day']}일차" in row)
            for one in day["assistance"]:
                assert f"{one['name']} {one['sets']}×{one['repetitions']}" in row


def test_the_table_says_what_a_lifter_must_know(client: TestClient) -> None:
    body = {**GOOD_MONTH, "basis": "tm", "rm_weight": {**GOOD["rm_weight"], "squat": 225}}
    text = client.post(MONTH, json=body, headers=MARKDOWN).text
    for words in (
        "첫 주 첫 세트 55%, 주마다 +10%p, 세트마다 +5%p, 디로딩 첫 세트 50%",
        "트레이닝 맥스: 벤치프레스 36 kg, 스쿼트 202.5 kg",
        "바 20 kg",
        "112.5 kg × 5 (55%) [20+20+5+1.25]",
        "17.5 kg × 3 (65%) 빈 바보다 가벼움",
        "20 kg × 5 (55%) [빈 바]",
        "스쿼트 225kg은 입문 남성에게 드문 기록입니다. 파운드라면 102.1kg입니다.",
    ):
        assert words in text


@pytest.mark.parametrize(("days", "dates"), [(2, [7, 10, 14]), (3, [7, 9, 11]), (4, [7, 8, 10])])
def test_the_calendar_has_an_event_on_every_training_day(
    days: int, dates: list[int], client: TestClient
) -> None:
    body = {**GOOD_MONTH, "days_per_week": days}
    response = client.post(f"{MONTH}?start=2026-12-07", json=body, headers=CALENDAR)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/calendar; charset=utf-8"
    assert "routine.ics" in response.headers["content-disposition"]
    assert max(map(len, response.content.split(b"\r\n"))) <= 75  # RFC 5545, section 3.1
    events = list(Calendar.from_ical(response.content).walk("VEVENT"))
    starts = [event.decoded("dtstart") for event in events]
    assert len(events) == 4 * days
    assert starts == sorted(set(starts))
    assert starts[:3] == [date(2026, 12, day) for day in dates]
    assert (starts[-1] - starts[0]).days < 28
    answer = client.post(MONTH, json=body).json()
    first = answer["weeks"][0]["days"][0]
    summary, description = str(events[0]["summary"]), str(events[0]["description"])
    main = first["lifts"][0]
    assert summary.startswith(LIFTS[main["lift"]])
    assert f"{main['sets'][0]['kg']:g} kg" in description
    assert {str(event["transp"]) for event in events} == {"TRANSPARENT"}
    assert all(one["name"] in description for one in first["assistance"])


def test_importing_a_calendar_twice_makes_no_doubles(client: TestClient) -> None:
    def uids(start: str) -> list[str]:
        response = client.post(f"{MONTH}?start={start}", json=GOOD_MONTH, headers=CALENDAR)
        return [str(e["uid"]) for e in Calendar.from_ical(response.content).walk("VEVENT")]

    assert uids("2026-12-07") == uids("2026-12-07")
    assert len(set(uids("2026-12-07") + uids("2027-01-04"))) == 2 * len(uids("2026-12-07"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "missing"),
        ("?start=", "date"),
        ("?start=tomorrow", "date"),
        ("?start=2026-02-30", "no such day"),
        ("?start=2027-02-29", "no such day"),
        ("?start=2026-W50-1", "date"),
        ("?start=20261207", "date"),
        ("?start=2026-12-7", "date"),
        ("?start=2026-12-07T00:00", "date"),
        ("?start=%D9%A2026-12-07", "date"),
        ("?start=1999-12-31", "2000-01-01"),
        ("?start=9999-12-31", "2100-12-31"),
    ],
)
def test_a_calendar_needs_a_date(
    query: str, words: str, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    response = client.post(f"{MONTH}{query}", json=GOOD_MONTH, headers=CALENDAR)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "start"
    assert words in response.json()["error"]["message"]
    for accept in ("application/json", "text/markdown") if query else ():
        also = client.post(f"{MONTH}{query}", json=GOOD_MONTH, headers={"accept": accept})
        assert also.json() == response.json()
    assert len(engine.calls) == asked


def test_the_last_start_still_has_a_calendar(client: TestClient) -> None:
    response = client.post(f"{MONTH}?start={LAST_START}", json=GOOD_MONTH, headers=CALENDAR)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/*;q=0.5, application/json", "application/json"),
        ("text/markdown, application/json;q=0.9", "text/markdown"),
        ("text/html, text/markdown;q=0.8", "text/markdown"),
        ("TEXT/Markdown", "text/markdown"),
        ("text, */*", "application/json"),
        ("text/markdown, ;;", "text/markdown"),
        ("text/markdown;q=high, application/json;q=0.5", "text/markdown"),
        ("nonsense", "application/json"),
        (";;", "application/json"),
        ("", "application/json"),
    ],
)
def test_the_accept_header_chooses_the_form(accept: str, kind: str, client: TestClient) -> None:
    response = client.post(MONTH, json=GOOD_MONTH, headers={"accept": accept})
    assert response.headers["content-type"].split(";")[0] == kind


def test_repeated_accept_headers_are_one_list(client: TestClient) -> None:
    headers = [("accept", "text/html"), ("accept", "text/markdown")]
    response = client.post(MONTH, json=GOOD_MONTH, headers=httpx.Headers(headers))
    assert response.headers["content-type"].startswith("text/markdown")


@pytest.mark.parametrize(
    "accept", ["text/html", "image/png, text/html", "text/html, nonsense", "*/*;q=0"]
)
@pytest.mark.parametrize("task", TASKS)
def test_a_form_that_is_not_offered_is_refused_before_the_engine_is_asked(
    accept: str, task: str, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    body = {"rate": GOOD, "month": GOOD_MONTH}[task]
    response = client.post(f"/gen/routine/{task}", json=body, headers={"accept": accept})
    assert response.status_code == 406
    assert response.json()["error"]["code"] == "not_acceptable"
    assert "application/json" in response.json()["error"]["message"]
    assert len(engine.calls) == asked


def test_a_wrong_month_is_held_back_and_counted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = json.loads(client.post(MONTH, json=GOOD_MONTH).text)
    right["weeks"][0]["days"][0]["lifts"][0]["sets"][0]["kg"] += 2.5
    monkeypatch.setattr("serving.tasks.month.answer.encode", lambda _: json.dumps(right))
    response = client.post(MONTH, json=GOOD_MONTH)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "answer_rejected"
    line = 'routine_semantic_violations_total{adapter="month",rule="kg"} 1.0'
    assert line in client.get("/metrics").text
