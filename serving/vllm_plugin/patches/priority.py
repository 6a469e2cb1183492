"""Steps for those whose answer somebody waits for.

vLLM 0.32's priorities order its queue; what runs is computed in every step, whatever its priority.
A task's request beside sixty lines of a batch then takes as long as they do. Here the lines stand
still in its steps, with all they have.
"""

from collections.abc import Sequence
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

URGENT, PATIENT = -1, 1
"""Priorities of tasks and of lines of batches; what is passed through has 0."""
MOST_HELD = 16
"""Steps in a row that lines may stand still: each gets on even beside tasks without end."""

vllm_schedule = Scheduler.schedule
_held_steps = 0


def held(running: Sequence[Request], is_urgent: bool) -> list[Request]:
    """Return which of the running requests stand still in a step.

    Args:
        running: in vLLM's order.
        is_urgent: whether somebody who waits in the queue is urgent.
    """
    if not is_urgent and all(request.priority > URGENT for request in running):
        return []
    return [request for request in running if request.priority >= PATIENT]


def schedule(self: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
    """Replace vLLM's ``Scheduler.schedule``: leave those who stand still out of the step."""
    global _held_steps  # noqa: PLW0603 (a process has one scheduler)
    is_urgent = bool(self.waiting) and self.waiting.peek_request().priority <= URGENT
    found = held(self.running, is_urgent) if _held_steps < MOST_HELD else []
    _held_steps = _held_steps + 1 if found else 0
    if not found:
        return vllm_schedule(self, *args, **kwargs)
    self.running = [request for request in self.running if request not in found]
    self.max_num_running_reqs -= len(found)
    try:
        return vllm_schedule(self, *args, **kwargs)
    finally:
        self.running += found
        self.max_num_running_reqs += len(found)
