"""Processes forked from the one that has imported everything."""

import os
from multiprocessing import forkserver
from multiprocessing.queues import Queue

import pytest

from serving.vllm_plugin.preload import _Context


def report(queue: "Queue[dict[str, str]]") -> None:
    queue.put(dict(os.environ))


def test_a_forked_process_has_the_environment_of_the_one_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROUTINE_GONE", "1")
    monkeypatch.setenv("ROUTINE_CHANGED", "before")
    forkserver.ensure_running()
    monkeypatch.delenv("ROUTINE_GONE")
    monkeypatch.setenv("ROUTINE_CHANGED", "after")
    context = _Context()
    queue: Queue[dict[str, str]] = context.Queue()
    process = context.Process(target=report, name="EngineCore", kwargs={"queue": queue})
    process.start()
    seen = queue.get(timeout=60)
    process.join()
    assert process.exitcode == 0
    assert seen == dict(os.environ)
