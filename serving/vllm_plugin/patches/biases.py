"""``logit_bias`` and ``min_p`` beside drafts.

vLLM 0.32 refuses both for every request of an engine that speculates (vllm/sampling_params.py), and
does not build what applies them (vllm/v1/sample/logits_processor). But its rejection sampler
samples a request without a draft as it samples any other (vllm/v1/sample/rejection_sampler.py, the
bonus token). So such a request is not drafted for, and the others are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import (
    LogitBiasLogitsProcessor,
    LogitsProcessors,
    MinPLogitsProcessor,
    build_logitsprocs,
)

vllm_build_logitsprocs = build_logitsprocs
_built: list[tuple[LogitBiasLogitsProcessor, MinPLogitsProcessor]] = []
"""Those of this process's batch."""


def build(
    vllm_config: VllmConfig,
    device: torch.device,
    is_pin_memory: bool,
    is_pooling_model: bool,
    custom_logitsprocs: Sequence[Any] = (),
) -> LogitsProcessors:
    """Replace vLLM's ``build_logitsprocs``: what it leaves out is added."""
    found = vllm_build_logitsprocs(
        vllm_config, device, is_pin_memory, is_pooling_model, custom_logitsprocs
    )
    if vllm_config.speculative_config is None or is_pooling_model:
        return found
    bias = LogitBiasLogitsProcessor(vllm_config, device, is_pin_memory)
    min_p = MinPLogitsProcessor(vllm_config, device, is_pin_memory)
    _built[:] = [(bias, min_p)]
    return LogitsProcessors([*found.all, bias, min_p])


def undrafted() -> set[int]:
    """Return the rows of the batch whose requests have a ``logit_bias`` or ``min_p``."""
    rows: set[int] = set()
    for bias, min_p in _built:
        rows.update(bias.biases)
        if min_p.min_p_count:
            rows.update(np.flatnonzero(min_p.min_p_cpu).tolist())
    return rows
