"""Lines of batches stand still in the steps of tasks."""

from types import SimpleNamespace
from typing import Any

import pytest

from serving.gateway.engine import BATCH_PRIORITY, TASK_PRIORITY
from serving.vllm_plugin.patches import priority
from serving.vllm_plugin.patches.priority import MOST_HELD, PATIENT, URGENT, schedule


class Waiting(list[Any]):
    def peek_request(self) -> Any:
        return self[0]


def requests(*priorities: int) -> list[Any]:
    return [SimpleNamespace(priority=each) for each in priorities]


class Desk:
    """vLLM's scheduler, as far as it is looked at; a step is what runs in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, running: list[Any], waiting: list[Any]):
        self.scheduler: Any = SimpleNamespace(
            running=running, waiting=Waiting(waiting), max_num_running_reqs=8
        )
        self.limits: list[int] = []
        monkeypatch.setattr(priority, "_held_steps", 0)
        monkeypatch.setattr(priority, "vllm_schedule", self._step)

    def _step(self, scheduler: Any) -> list[int]:
        self.limits.append(scheduler.max_num_running_reqs)
        return [request.priority for request in scheduler.running]

    def step(self) -> Any:
        return schedule(self.scheduler)


def test_the_priorities_are_the_gateway_s() -> None:
    assert (URGENT, PATIENT) == (TASK_PRIORITY, BATCH_PRIORITY)


@pytest.mark.parametrize(
    ("running", "waiting", "step"),
    [
        ((1, 1), (), [1, 1]),
        ((1, -1, 1), (), [-1]),
        ((0, 1, -1), (), [0, -1]),
        ((0, 1), (), [0, 1]),  # what is passed through may last for minutes
        ((1, 1), (-1,), []),
        ((1, 1), (0,), [1, 1]),
        ((-1, 0), (), [-1, 0]),
        ((), (-1,), []),
    ],
)
def test_lines_stand_still_in_the_steps_of_tasks(
    monkeypatch: pytest.MonkeyPatch, running: Any, waiting: Any, step: list[int]
) -> None:
    desk = Desk(monkeypatch, requests(*running), requests(*waiting))
    before = list(desk.scheduler.running)
    assert desk.step() == step
    assert sorted(map(id, desk.scheduler.running)) == sorted(map(id, before))
    assert desk.scheduler.max_num_running_reqs == 8
    assert desk.limits == [8 - (len(running) - len(step))]  # they keep their places


def test_lines_get_on_beside_tasks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, requests(-1, 1), [])
    steps = [1 in desk.step() for _ in range(5 * (MOST_HELD + 1))]
    assert sum(steps) == 5


def test_an_error_in_vllm_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, requests(-1, 1, 1), [])

    def fail(_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(priority, "vllm_schedule", fail)
    with pytest.raises(RuntimeError):
        desk.step()
    assert len(desk.scheduler.running) == 3 and desk.scheduler.max_num_running_reqs == 8
