"""Sampling parameters by drafted token, on CPU.

vLLM 0.32's own ``expand_batch_to_tokens`` (vllm/v1/sample/rejection_sampler.py) has its result made
by a kernel that writes int64: on CPU the result is copied to int64 for it and never copied back
(vllm/utils/cpu_triton_utils.py), so temperature, top-k and top-p of drafted tokens are whatever was
in memory. One request that samples is enough to spoil the logits of every request in its batch,
greedy and constrained ones too, whose grammar then rejects what was sampled. Known as
vllm-project/vllm#42638.

Its ``apply_top_k_top_p`` on CPU fails on a batch without drafts (the maximum of no top-k), and with
it the engine: one request with a top-k and no top-p, prefilled alone, was enough.
"""

from __future__ import annotations

from torch import Tensor
from vllm.v1.sample.ops import topk_topp_sampler


def expand_batch_to_tokens(
    x: Tensor,
    cu_num_tokens: Tensor,
    num_tokens: int,
    replace_from: float = 0,
    replace_to: float = 0,
) -> Tensor:
    """Repeat each request's value for each of its drafted tokens.

    Args:
        x: values, of shape (requests,).
        cu_num_tokens: drafted tokens up to and including each request, of shape (requests,).
        num_tokens: all drafted tokens.
        replace_from: a value that is replaced.
        replace_to: by this.

    Returns:
        Values of ``x``'s type, of shape (num_tokens,).
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    expanded = x.repeat_interleave(counts, output_size=num_tokens)
    return expanded.masked_fill(expanded == replace_from, replace_to)


def apply_top_k_top_p(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
    """Mask what top-k and top-p leave out, in place; nothing where nothing was drafted.

    Args:
        logits: of shape (drafted tokens, vocabulary).
        k: tokens kept of each row, of shape (drafted tokens,); the vocabulary's size keeps all.
        p: probability kept of each row, of shape (drafted tokens,).

    Returns:
        Logits of the same shape.
    """
    return topk_topp_sampler.apply_top_k_top_p(logits, k, p) if len(logits) else logits
