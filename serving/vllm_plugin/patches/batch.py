"""Batches on CPU come in few sizes, so that oneDNN makes each of its kernels once.

oneDNN makes a kernel for every number of rows that a matrix shape meets, in about half a
millisecond, and keeps it. With several requests at once nearly every step has another number of
rows, and a step of a small model has a dozen matrix shapes: a fifth of its time went there. vLLM
0.32 pads batches to the sizes of its CUDA graphs; without CUDA graphs it takes them as they come.
Here those are padded too. The rows added pass through the layers and go nowhere: they have no slot
in the KV cache, and nothing is sampled from them.
"""

from __future__ import annotations

from typing import Any

from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

SIZES_PER_DOUBLING = 8
"""At most one row in nine is added."""

vllm_dispatch = CudagraphDispatcher.dispatch


def padded(rows: int) -> int:
    """The smallest size that is not below ``rows``."""
    doubling = max(rows - 1, 1).bit_length() - 1
    step = max(1, (1 << doubling) // SIZES_PER_DOUBLING)
    return -(-rows // step) * step


def dispatch(
    self: CudagraphDispatcher, num_tokens: int, *args: Any, **kwargs: Any
) -> tuple[CUDAGraphMode, BatchDescriptor]:
    """vLLM's ``CudagraphDispatcher.dispatch``, with the batch padded where no graph is used."""
    mode, batch = vllm_dispatch(self, num_tokens, *args, **kwargs)
    size, most = padded(num_tokens), self.vllm_config.scheduler_config.max_num_batched_tokens
    if mode == CUDAGraphMode.NONE and size <= most:
        batch = BatchDescriptor(size)
    return mode, batch
