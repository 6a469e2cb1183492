"""POST /gen/routine/next: arithmetic alone, between two months."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.kit.bad_requests import GOOD_MONTH, good
from tests.unit.gateway.fake_engine import FakeEngine, wait_ready

NEXT = "/gen/routine/next"
MONTH = "/gen/routine/month"


def test_a_month_is_followed_by_the_next(client: TestClient, engine: FakeEngine) -> None:
    """As an app does it: the month's answer has all that the next one needs."""
    wait_ready(client)
    profile = {k: v for k, v in GOOD_MONTH.items() if k not in ("rates", "plates")}
    month = client.post(MONTH, json=profile).json()
    last = {
        main["lift"]: main["sets"][2] for day in month["weeks"][2]["days"] for main in day["lifts"]
    }
    asked = len(engine.calls)
    body: dict[str, Any] = {k: v for k, v in profile.items() if k != "days_per_week"}
    body |= {"rates": month["rates"], "repetitions": good("next")["repetitions"]}
    response = client.post(NEXT, json=body)
    assert response.status_code == 200, response.text
    assert len(engine.calls) == asked, "arithmetic needs no model"
    answer = response.json()
    for lift, one in last.items():
        assert answer["lifts"][lift]["kg"] == one["kg"]
    for path, more in (("/gen/routine/rate", {}), (MONTH, {"days_per_week": 4})):
        again = client.post(path, json={**answer["profile"], **more})
        assert again.status_code == 200, again.text


@pytest.mark.parametrize("accept", ["text/html", "text/calendar"])
def test_it_has_one_form(accept: str, client: TestClient) -> None:
    response = client.post(NEXT, json=good("next"), headers={"accept": accept})
    assert response.status_code == 406
    assert response.json()["error"]["code"] == "not_acceptable"
