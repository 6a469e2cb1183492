"""Per-token sampling parameters for drafted tokens on CPU.

vLLM 0.32's ``expand_batch_to_tokens`` (vllm/v1/sample/rejection_sampler.py) fills its result with a
kernel that writes int64. On CPU, the result is copied to int64 for the kernel and never copied back
(vllm/utils/cpu_triton_utils.py), so temperature, top-k and top-p of drafted tokens are
uninitialized memory. A single sampling request corrupts the logits of every request in its batch,
including greedy and constrained ones, whose grammar then rejects the sampled tokens. Reported as
vllm-project/vllm#42638.

On CPU, vLLM's ``apply_top_k_top_p`` fails on a batch without drafts (maximum of an empty top-k) and
crashes the engine. One request with top-k but no top-p, prefilled alone, is enough.
"""

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
        cu_num_tokens: cumulative drafted tokens by request, of shape (requests,).
        num_tokens: total drafted tokens.
        replace_from: value to replace.
        replace_to: replacement value.

    Returns:
        Values of ``x``'s type, of shape (num_tokens,).
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    expanded = x.repeat_interleave(counts, output_size=num_tokens)
    return expanded.masked_fill(expanded == replace_from, replace_to)


def apply_top_k_top_p(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
    """Mask logits outside top-k and top-p in place; do nothing if there are no drafted tokens.

    Args:
        logits: logits of shape (drafted tokens, vocabulary).
        k: tokens to keep per row, of shape (drafted tokens,); the vocabulary size keeps all.
        p: probability mass to keep per row, of shape (drafted tokens,).

    Returns:
        Logits of the same shape.
    """
    return topk_topp_sampler.apply_top_k_top_p(logits, k, p) if len(logits) else logits
