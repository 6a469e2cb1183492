"""LoRA on CPU: one multiplication per adapter in a batch, none for requests without an adapter.

vLLM 0.32 (vllm/lora/ops/torch_ops/lora_ops.py) gathers an adapter's full weights once per token.
It also treats index -1 ("no adapter") as a Python index, so such requests get the last adapter's
weights. This wrapper groups rows by adapter once per step. It covers linear layers, the only ones
our adapters have; all other layers use vLLM's code.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.vllm_plugin.patches.batch import padded


class Group(NamedTuple):
    """Rows of a batch that use the same adapter."""

    slot: int
    """Adapter slot."""
    rows: Tensor | None
    """int64 of shape (padded size,), padded by repeating the last row; None for the whole batch."""
    number: int
    """Number of rows, without padding."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's CPU wrapper with one multiplication per adapter for linear layers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups: list[Group] = []

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Group the batch's rows. vLLM calls this once per step, before the forward pass."""
        super().update_metadata(*args, **kwargs)
        self._groups = groups_of(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add ``x @ A.T * scale @ B.T`` to each row of ``y``, using the row's adapter.

        Args:
            y: output, modified in place; (..., sum of output_slices) with as many rows as ``x``,
                the batch's rows first. Values added to later rows are irrelevant.
            x: input; (..., in).
            lora_a_stacked: weights of all slots, by slice; (slots, 1, rank, in).
            lora_b_stacked: weights of all slots, by slice; (slots, 1, out, rank).
            scale: factor of the product.
            output_slices: size of each slice in ``y``.
            buffer: unused.
        """
        rows, out = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, members, number in self._groups:
            chosen = rows if members is None else rows[members]
            offset = 0
            for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                place, low = out[:, offset : offset + size], chosen @ a[slot, 0].T
                if members is None:
                    place.addmm_(low, b[slot, 0].T, alpha=scale)
                else:
                    added = (low @ b[slot, 0].T)[:number]
                    place.index_add_(0, members[:number], added, alpha=scale)
                offset += size


def groups_of(slots: Tensor) -> list[Group]:
    """Group rows by adapter.

    Args:
        slots: adapter slot of each row, -1 for none; int64 of shape (rows,).
    """
    found = []
    for slot in torch.unique(slots[slots >= 0]).tolist():
        members = torch.nonzero(slots == slot).squeeze(1)
        number = len(members)
        if number == len(slots):
            return [Group(slot, None, number)]
        repeated = members[-1:].expand(padded(number) - number)
        found.append(Group(slot, torch.cat((members, repeated)), number))
    return found
