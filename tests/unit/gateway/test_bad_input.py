"""Bad input: a clear error in the one shape, and the engine is not asked."""

import pytest
from starlette.testclient import TestClient

from tests.kit.bad_requests import CASES, Case
from tests.unit.gateway.fake_engine import FakeEngine, wait_ready


@pytest.mark.parametrize(("task", "case"), CASES, ids=[f"{t}: {c.name[:40]}" for t, c in CASES])
def test_bad_input_is_refused_with_field_and_allowed_values(
    task: str, case: Case, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    headers = {"content-type": case.content_type} if case.content_type else {}
    response = client.post(f"/gen/routine/{task}", content=case.body, headers=headers)
    assert response.status_code == case.status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == case.param
    assert case.words in error["message"]
    assert len(error["message"]) < 400
    assert len(engine.calls) == asked, "the engine was asked"
