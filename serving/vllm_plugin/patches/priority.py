"""Steps for those whose answer somebody waits for.

vLLM 0.32's priorities order its queue; what runs is computed in every step, whatever its priority.
A task's request beside sixty lines of a batch then takes as long as they do. Here the lines stand
still in its steps, with all they have, and so do prompts that were passed through, but for the
first. A step that has begun must end, so a step of lines alone has as many of them as are computed
in a few times what the shortest takes, and of a prompt alone no more is read than of one among
others.
"""

import math
import time
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from serving.limit import AdaptiveLimit, Limit
from serving.vllm_plugin.patches.first import add_drafts

URGENT, PATIENT = -1, 1
"""Priorities of tasks and of lines of batches; what is passed through has 0."""
MOST_HELD = 16
"""Steps in a row that lines may stand still: each gets on even beside tasks without end."""
MOST_READ = 1
"""Prompts that are passed through and read in a step beside a task's request."""
MANY_TIMES = 4
"""Longest time of a step of lines alone, in multiples of the shortest."""

vllm_schedule, vllm_update = Scheduler.schedule, Scheduler.update_from_output


class Lines:
    """What a process's scheduler keeps about lines."""

    def __init__(self) -> None:
        self.limit: Limit = AdaptiveLimit(math.inf, MANY_TIMES, start=1)
        """Of a step of lines alone."""
        self.held_steps = 0
        self.began = 0.0
        """When the step began, if it has lines alone; else 0."""


lines = Lines()


def schedule(self: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
    """Replace vLLM's ``Scheduler.schedule``: leave those who stand still out of the step."""
    lines.began = 0.0
    others = [request for request in self.requests.values() if request.priority < PATIENT]
    is_urgent = any(request.priority <= URGENT for request in others)
    still = set(_reading(self)[MOST_READ:]) if is_urgent else set()
    most = active = self.max_num_active_reqs
    if len(others) < len(self.requests):
        is_held = is_urgent and lines.held_steps < MOST_HELD
        lines.held_steps = lines.held_steps + 1 if is_held else 0
        room = 0 if is_held else int(lines.limit.value)
        still.update([request for request in self.running if request.priority >= PATIENT][room:])
        active = len(others) + room
        if not others:
            lines.began = time.perf_counter()
    self.running = [request for request in self.running if request not in still]
    self.max_num_active_reqs = min(most - len(still), active)
    try:
        return add_drafts(self, schedule_parts(self, *args, **kwargs))
    finally:
        self.running += still
        self.max_num_active_reqs = most


def _reading(self: Scheduler) -> list[Request]:
    """Return the requests that are passed through whose prompts are being read."""
    return [
        request
        for request in self.running
        if URGENT < request.priority < PATIENT
        and request.num_computed_tokens < request.num_prompt_tokens
    ]


def schedule_parts(self: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
    """Call vLLM's ``Scheduler.schedule``, but read a long prompt in parts when it is alone, too:
    vLLM reads it at once, and whoever comes then waits for all of it."""
    most = self.max_num_scheduled_tokens
    if len(self.requests) == 1 and all(each.priority > URGENT for each in self.requests.values()):
        self.max_num_scheduled_tokens = self.scheduler_config.long_prefill_token_threshold or most
    try:
        return vllm_schedule(self, *args, **kwargs)
    finally:
        self.max_num_scheduled_tokens = most


def update_from_output(self: Scheduler, output: SchedulerOutput, *args: Any) -> Any:
    """Replace vLLM's ``Scheduler.update_from_output``: take note of how long the step took."""
    count = len(output.num_scheduled_tokens)
    if lines.began and count:
        seconds = time.perf_counter() - lines.began
        for _ in range(count):  # each took as long; the limit grows by one a step at most
            lines.limit.observe("lines", seconds, is_full=count >= int(lines.limit.value))
    return vllm_update(self, output, *args)
