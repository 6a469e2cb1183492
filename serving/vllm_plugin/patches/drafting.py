"""Drafts for a whole batch, whatever one of its requests is.

vLLM 0.32 skips the drafter for a step if any request of the batch is within a draft's length of the
model's context (vllm/v1/worker/gpu_model_runner.py): one caller with a long prompt makes all others
decode token by token. Our drafter keeps each draft within the context by itself.
"""

from typing import Any

from vllm.v1.worker.gpu_model_runner import GPUModelRunner

vllm_input_fits_in_drafter = GPUModelRunner._input_fits_in_drafter


def input_fits_in_drafter(_: GPUModelRunner, common_attn_metadata: Any) -> bool:
    """Replace vLLM's ``GPUModelRunner._input_fits_in_drafter``."""
    return common_attn_metadata is not None
