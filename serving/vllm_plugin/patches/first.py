"""Drafts in a request's first pass.

vLLM 0.32 asks the drafter after a request's first token, so each answer takes two passes at least:
its prompt's, and one that verifies. Its runner takes drafts with a prompt; only the scheduler
leaves them out for requests that it has just admitted. Here they are added to its step: what
answers the prompt, as far as the drafter knows, is verified in the pass that reads the prompt.
"""

from typing import Protocol

from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request


class Drafter(Protocol):
    """Drafts what follows a prompt; never raises."""

    def first(self, prompt: list[int]) -> list[int]: ...


drafters: list[Drafter] = []
"""This process's drafter, if the runner is in the scheduler's process."""


def add_drafts(self: Scheduler, output: SchedulerOutput) -> SchedulerOutput:
    """Add drafts to a step for the requests whose whole prompts it reads."""
    for drafter in drafters:
        for new in output.scheduled_new_reqs:
            request = self.requests[new.req_id]
            if request.is_prefill_chunk or request.output_token_ids:  # or was preempted
                continue
            _add(self, output, new, request, drafter)
            if new.req_id not in output.scheduled_spec_decode_tokens and (
                metrics := request.spec_decode_metrics
            ):  # so that it counts this pass, too, and with it all of an answer's
                metrics.observe(num_draft_tokens=0, num_accepted=0, detailed=False)
    return output


def _add(
    self: Scheduler,
    output: SchedulerOutput,
    new: NewRequestData,
    request: Request,
    drafter: Drafter,
) -> None:
    room = min(
        self.max_num_scheduled_tokens - output.total_num_scheduled_tokens,
        self.max_model_len - request.num_tokens - self.num_sampled_tokens_per_step,
        self.num_spec_tokens,
    )
    if room <= 0 or not request.prompt_token_ids or not _may_be_drafted(request.sampling_params):
        return
    draft = drafter.first(request.prompt_token_ids)[:room]
    draft = self.structured_output_manager.validate_tokens(request, draft) if draft else draft
    if not draft:
        return
    planned = output.scheduled_spec_decode_tokens
    if padding := planned.get(new.req_id):  # of a prompt that is cached but for its last token
        planned[new.req_id] = draft + padding[len(draft) :]
        return
    blocks = self.kv_cache_manager.allocate_slots(request, len(draft))
    if blocks is None:
        return
    for ids, more in zip(new.block_ids, blocks.get_block_ids(), strict=True):
        ids.extend(more)
    planned[new.req_id] = draft
    output.num_scheduled_tokens[new.req_id] += len(draft)
    output.total_num_scheduled_tokens += len(draft)
    request.num_computed_tokens += len(draft)
    request.num_in_flight_tokens += len(draft)


def _may_be_drafted(params: SamplingParams | None) -> bool:
    """Return whether drafts change nothing: biases.py, and a prompt's log probabilities, of which
    vLLM takes as many as the step has tokens."""
    if params is None:
        return False
    return not params.logit_bias and not params.min_p and params.prompt_logprobs is None
