"""Steps for those whose answer somebody waits for.

vLLM 0.32's priorities order its queue; what runs is computed in every step, whatever its priority.
A task's request beside sixty lines of a batch then takes as long as they do. Here the lines stand
still in its steps, with all they have.
"""

from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

URGENT, PATIENT = -1, 1
"""Priorities of tasks and of lines of batches; what is passed through has 0."""
MOST_HELD = 16
"""Steps in a row that lines may stand still: each gets on even beside tasks without end."""

vllm_schedule = Scheduler.schedule
_held_steps = 0


def schedule(self: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
    """Replace vLLM's ``Scheduler.schedule``: leave those who stand still out of the step."""
    global _held_steps  # noqa: PLW0603 (a process has one scheduler)
    patient = [request for request in self.running if request.priority >= PATIENT]
    if not patient or _held_steps == MOST_HELD or not _is_urgent(self):
        _held_steps = 0
        return vllm_schedule(self, *args, **kwargs)
    _held_steps += 1
    self.running = [request for request in self.running if request.priority < PATIENT]
    self.max_num_running_reqs -= len(patient)
    try:
        return vllm_schedule(self, *args, **kwargs)
    finally:
        self.running += patient
        self.max_num_running_reqs += len(patient)


def _is_urgent(scheduler: Scheduler) -> bool:
    """Return whether somebody urgent runs, or is next."""
    is_next = bool(scheduler.waiting) and scheduler.waiting.peek_request().priority <= URGENT
    return is_next or any(request.priority <= URGENT for request in scheduler.running)
