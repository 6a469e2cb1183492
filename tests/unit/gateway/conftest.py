from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.unit.gateway.fake_engine import HERE, FakeEngine, factory, wait_ready


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(probe_interval_seconds=0.01, max_body_bytes=4096)


@pytest.fixture
def client(engine: FakeEngine, settings: GatewaySettings) -> Iterator[TestClient]:
    app = create_app(settings, factory(engine))
    with TestClient(app, HERE, raise_server_exceptions=False) as client:
        wait_ready(client)
        yield client
