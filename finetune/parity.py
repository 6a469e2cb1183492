"""Whether vLLM writes what PEFT would: greedy tokens, one forward pass a batch of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

ROWS = 8
"""Of a pass."""


class Greedy(NamedTuple):
    """A prompt and what followed it, token by token."""

    prompt: list[int]
    tokens: list[int]


def agreeing(base: Path, adapter: Path, dtype: str, written: Sequence[Greedy]) -> int:
    """Return of how many texts each token is PEFT's first choice after those before it.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        dtype: torch's name of the precision, or "auto" for the base's own.
        written: greedy tokens of the engine.
    """
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = PeftModel.from_pretrained(plain, adapter, autocast_adapter_dtype=False)
    model.to(device).eval()
    batches = [written[start : start + ROWS] for start in range(0, len(written), ROWS)]
    with torch.inference_mode():
        return sum(_agreeing(model, batch) for batch in batches)


def _agreeing(model: nn.Module, batch: Sequence[Greedy]) -> int:
    rows = [torch.tensor(one.prompt + one.tokens) for one in batch]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(next(model.parameters()).device)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    chosen = model(input_ids=ids, attention_mask=mask.long()).logits.argmax(-1).cpu()
    return sum(
        chosen[row, len(one.prompt) - 1 : len(one.prompt) + len(one.tokens) - 1].tolist()
        == one.tokens
        for row, one in enumerate(batch)
    )
