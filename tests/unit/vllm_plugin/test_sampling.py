"""Sampling parameters by drafted token."""

import itertools

import pytest
import torch

from serving.vllm_plugin.patches.sampling import apply_top_k_top_p, expand_batch_to_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_each_drafted_token_has_its_request_s_value(dtype: torch.dtype) -> None:
    """As in vLLM's own example; the second request has no draft."""
    values = torch.tensor([3, 5, 7], dtype=dtype)
    drafted = torch.tensor([2, 2, 5], dtype=torch.int32)
    expanded = expand_batch_to_tokens(values, drafted, 5)
    assert expanded.dtype == dtype
    assert expanded.tolist() == [3, 3, 7, 7, 7]


def test_fractions_stay_and_greedy_s_zero_becomes_a_divisor() -> None:
    temperatures = torch.tensor([0.0, 0.7])
    drafted = torch.tensor([1, 3], dtype=torch.int32)
    expanded = expand_batch_to_tokens(temperatures, drafted, 3, replace_from=0, replace_to=1)
    torch.testing.assert_close(expanded, torch.tensor([1.0, 0.7, 0.7]))


def test_top_k_and_top_p_of_no_drafted_token() -> None:
    """A prefill alone has no draft; vLLM's own function raised, which ended the engine."""
    nothing, k = torch.empty((0, 8)), torch.empty(0, dtype=torch.int32)
    for top_k, top_p in itertools.product((None, k), (None, torch.empty(0))):
        assert apply_top_k_top_p(nothing, top_k, top_p).shape == (0, 8)


def test_top_k_of_a_drafted_token() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    kept = apply_top_k_top_p(logits, torch.tensor([2, 3], dtype=torch.int32), None)
    assert kept.isfinite().tolist() == [[False, True, True], [True, True, True]]
