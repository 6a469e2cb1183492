"""Pads batches on CPU to a few sizes, so that oneDNN builds each kernel only once.

oneDNN builds and caches one kernel per matrix shape and number of rows, in about 0.5 ms each. With
concurrent requests, nearly every step has a different number of rows, and a step of a small model
has a dozen matrix shapes; this took a fifth of its time. vLLM 0.32 pads batches to its CUDA graph
sizes but does not pad without CUDA graphs. This patch pads those batches too. The padding rows pass
through the layers but have no KV cache slot and are not sampled.
"""

from typing import Any

from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

SIZES_PER_DOUBLING = 8
"""At most one row in nine is padding."""

vllm_dispatch = CudagraphDispatcher.dispatch


def padded(rows: int) -> int:
    """Return the smallest batch size that is at least ``rows``."""
    doubling = max(rows - 1, 1).bit_length() - 1
    step = max(1, (1 << doubling) // SIZES_PER_DOUBLING)
    return -(-rows // step) * step


def dispatch(
    self: CudagraphDispatcher, num_tokens: int, *args: Any, **kwargs: Any
) -> tuple[CUDAGraphMode, BatchDescriptor]:
    """Replace vLLM's ``CudagraphDispatcher.dispatch``: pad batches that use no CUDA graph."""
    mode, batch = vllm_dispatch(self, num_tokens, *args, **kwargs)
    size, most = padded(num_tokens), self.vllm_config.scheduler_config.max_num_batched_tokens
    if mode == CUDAGraphMode.NONE and size <= most:
        batch = BatchDescriptor(size)
    return mode, batch
