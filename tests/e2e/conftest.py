from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.stack import Stack

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("engine")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running service, on a machine without a C++ compiler; stopped by Ctrl-C at the end, which
    must leave nothing behind."""
    folder = tmp_path_factory.mktemp("stack")
    running = Stack.start(
        folder / "serve.log",
        CXX="/nowhere/c++",
        TORCHINDUCTOR_CACHE_DIR=str(folder / "compiled"),
    )
    try:
        running.wait_ready()
        yield running
        running.press_ctrl_c()
        running.wait_stopped()
    finally:
        running.kill()


@pytest.fixture
def fresh_stack(tmp_path: Path) -> Iterator[Stack]:
    """A service of its own, for a test that breaks it."""
    running = Stack.start(tmp_path / "serve.log")
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()
