"""LoRA on CPU: one multiplication for each adapter in a batch, none for requests without adapter.

vLLM 0.32 (vllm/lora/ops/torch_ops/lora_ops.py) gathers an adapter's whole weights once per token.
It also takes index -1, "no adapter", as Python does: such requests get the last adapter's weights.
This wrapper works out once a step which rows belong to which adapter. It is for linear layers, the
only ones our adapters have; everything else stays vLLM's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serving.vllm_plugin.patches.batch import padded


class Group(NamedTuple):
    """The rows of a batch that have one adapter."""

    slot: int
    """The adapter's."""
    rows: Tensor | None
    """int64 of shape (padded size,), the last one repeated; None for the whole batch."""
    number: int
    """How many, the repeated ones left out."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's CPU wrapper with grouped multiplications for linear layers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups: list[Group] = []

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called once a step, before the forward pass; takes what vLLM's takes."""
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
        """Add ``x @ A.T * scale @ B.T`` to each row of ``y``, with the row's own adapter.

        Args:
            y: output, changed in place; (..., sum of output_slices) with as many rows as ``x``,
                those of the batch first. What is added to rows past them does not matter.
            x: input; (..., in).
            lora_a_stacked: by slice, weights of all slots; (slots, 1, rank, in).
            lora_b_stacked: by slice; (slots, 1, out, rank).
            scale: of the product.
            output_slices: each slice's size in ``y``.
            buffer: not used.
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
    """Which rows belong to which adapter.

    Args:
        slots: each row's adapter slot, -1 for none; int64 of shape (rows,).
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
