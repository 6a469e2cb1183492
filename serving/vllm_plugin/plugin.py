"""What this project changes inside vLLM's processes (entry point group ``vllm.general_plugins``).

On CPU, LoRA is computed by ``lora_cpu``, batches are padded by ``batch_cpu``, and sampling
parameters go by ``sampling_cpu``, on the one version of vLLM that they were tested against.

vLLM runs its engine core and workers as children of the API server. When the API server is killed
outright (out of memory, SIGKILL), vLLM 0.32 leaves them running, with the model's memory and the
output pipe, and whoever started the engine waits forever. Here a child dies with its parent.
"""

from __future__ import annotations

import atexit
import logging

from serving.metrics import remove_folder
from serving.process import die_with_parent
from serving.vllm_plugin import TESTED_VLLM

LORA_WRAPPER = "serving.vllm_plugin.patches.lora.GroupedPunicaWrapper"

log = logging.getLogger("vllm.plugins.routine")
"""Below vLLM's own logger, which is set up in all of its processes."""


def register() -> None:
    """Called by vLLM in each of its processes, possibly more than once."""
    atexit.register(remove_folder)
    die_with_parent()
    _change_cpu()


def _allow_amx() -> None:
    """Ask Linux for AMX's registers, for this process. vLLM 0.32's attention uses them without
    asking, and an engine whose first prompt is a single token (oneDNN, which asks, multiplies that
    without AMX) ended by an illegal instruction."""
    import torch

    if torch.cpu.get_capabilities().get("amx_tile"):
        torch.cpu._init_amx()


def _change_cpu() -> None:
    import vllm
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    _allow_amx()
    if vllm.__version__ != TESTED_VLLM:
        log.warning(
            "vLLM is %s; LoRA, batches and sampling on CPU are left as they are (%s is patched)",
            vllm.__version__,
            TESTED_VLLM,
        )
        return
    platform = type(current_platform)
    setattr(platform, "get_punica_wrapper", classmethod(lambda _: LORA_WRAPPER))  # noqa: B010

    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.sample import rejection_sampler

    from serving.vllm_plugin.patches.batch import dispatch
    from serving.vllm_plugin.patches.sampling import apply_top_k_top_p, expand_batch_to_tokens

    setattr(CudagraphDispatcher, "dispatch", dispatch)  # noqa: B010
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
    setattr(rejection_sampler, "apply_top_k_top_p", apply_top_k_top_p)  # noqa: B010
