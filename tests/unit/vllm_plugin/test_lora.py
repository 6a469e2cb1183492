"""Grouped LoRA on CPU against float64, and against vLLM's own where that is right."""

import pytest
import torch
from torch import Tensor
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.vllm_plugin.patches.lora import GroupedPunicaWrapper, groups_of

SLOTS, RANK, IN, SLICES, SCALE = 3, 8, 32, (24, 40, 16), 2.0
IDS: list[int | None] = [11, 12, None]
"""Adapter id by slot; the last slot is empty."""
BATCHES = {
    "no adapter": [0, 0, 0, 0],
    "one adapter": [11] * 6,
    "one row": [12],
    "both, in runs": [11, 11, 11, 12, 12],
    "both, interleaved as prefill, decode and drafts": [11, 12, 11, 0, 12, 12, 0, 0, 11],
    "some without": [0, 11, 0, 0, 11],
    "first slot alone among none": [0, 0, 11],
    "so many that a group is padded": [11, 12] * 17 + [0],
}
each_batch = pytest.mark.parametrize("name", BATCHES)
each_phase = pytest.mark.parametrize("is_prefill", [True, False])


def weights(dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    torch.manual_seed(5)
    a = tuple(torch.randn(SLOTS, 1, RANK, IN).to(dtype) for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, size, RANK).to(dtype) for size in SLICES)
    return a, b  # the empty slot has weights too: nothing may read them


def run(
    wrapper: PunicaWrapperCPU,
    ids: list[int],
    is_prefill: bool,
    dtype: torch.dtype,
    padding: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Input, output before, output after; with as many rows of padding at the end."""
    mapping = LoRAMapping(tuple(ids), tuple(ids), is_prefill=is_prefill)
    wrapper.update_metadata(mapping, IDS, SLOTS, 100)
    torch.manual_seed(6)
    x = torch.randn(len(ids) + padding, IN).to(dtype)
    before = torch.randn(len(ids) + padding, sum(SLICES)).to(dtype)
    after = before.clone()
    a, b = weights(dtype)
    wrapper.add_lora_linear(after, x, a, b, SCALE, SLICES)
    return x, before, after


def reference(x: Tensor, before: Tensor, ids: list[int], dtype: torch.dtype) -> Tensor:
    """In float64, row by row."""
    a, b = weights(dtype)
    rows = []
    for row, adapter in enumerate(ids):
        delta = torch.zeros(sum(SLICES), dtype=torch.float64)
        if adapter:
            slot = IDS.index(adapter)
            parts = [
                b[s][slot, 0].double() @ (a[s][slot, 0].double() @ x[row].double())
                for s in range(len(SLICES))
            ]
            delta = SCALE * torch.cat(parts)
        rows.append(before[row].double() + delta)
    return torch.stack(rows)


@each_batch
@each_phase
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_every_row_gets_its_own_adapter(
    name: str, is_prefill: bool, padding: int, dtype: torch.dtype, tolerance: float
) -> None:
    ids = BATCHES[name]
    wrapper = GroupedPunicaWrapper(64, 64, "cpu")
    x, before, after = (rows[: len(ids)] for rows in run(wrapper, ids, is_prefill, dtype, padding))
    expected = reference(x, before, ids, dtype)
    scale = expected.abs().max()
    assert (after.double() - expected).abs().max() <= tolerance * scale
    for row, adapter in enumerate(ids):
        assert torch.equal(after[row], before[row]) == (not adapter)


@each_batch
@each_phase
def test_it_agrees_with_vllm_where_vllm_is_right(name: str, is_prefill: bool) -> None:
    ids = BATCHES[name]
    theirs = run(PunicaWrapperCPU(64, 64, "cpu"), ids, is_prefill, torch.float32)[2]
    ours = run(GroupedPunicaWrapper(64, 64, "cpu"), ids, is_prefill, torch.float32)[2]
    right = [row for row, adapter in enumerate(ids) if adapter]
    assert torch.allclose(ours[right], theirs[right], rtol=1e-4, atol=1e-4)


def test_vllm_still_gives_rows_without_adapter_another_s_weights() -> None:
    """The reason for all this; when it fails, the workaround may go."""
    ids = BATCHES["some without"]
    _, before, after = run(PunicaWrapperCPU(64, 64, "cpu"), ids, False, torch.float32)
    assert not torch.equal(after[0], before[0])


def test_groups_are_empty_without_adapters_and_whole_with_one() -> None:
    assert groups_of(torch.tensor([-1, -1])) == []
    assert groups_of(torch.tensor([1, 1])) == [(1, None, 2)]


def test_a_group_has_its_rows_and_is_padded_with_its_last() -> None:
    slots = torch.tensor([0, -1] * 17 + [1])
    first, second = groups_of(slots)
    assert first.slot == 0 and first.rows is not None and first.number == 17
    assert first.rows.tolist() == [*range(0, 34, 2), 32]
    assert second.slot == 1 and second.rows is not None and second.rows.tolist() == [34]
