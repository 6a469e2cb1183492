"""vLLM plugin that changes vLLM's processes (entry point group ``vllm.general_plugins``).

With the tested vLLM version only, it applies ``patches.constraints``, ``patches.priority``,
``patches.cards`` and, on CPU, ``patches.lora``, ``patches.batch`` and ``patches.sampling``.

vLLM runs its engine core and workers as children of the API server. If the API server is killed
(out of memory, SIGKILL), vLLM 0.32 leaves them running. They hold the model's memory and the output
pipe, so the process that started the engine waits forever. This plugin makes them exit with it, and
ends the engine if it takes more memory than it may.
"""

import atexit
import logging

from serving.metrics import remove_folder
from serving.process import die_with_parent
from serving.vllm_plugin import TESTED_VLLM, cap, is_tested

LORA_WRAPPER = "serving.vllm_plugin.patches.lora.GroupedPunicaWrapper"

log = logging.getLogger("vllm.plugins.routine")
"""Child of vLLM's logger, which is configured in all its processes."""


def register() -> None:
    """Apply the changes. vLLM calls this in each of its processes, possibly more than once."""
    atexit.register(remove_folder)
    die_with_parent()
    cap.start()
    import vllm
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _allow_amx()
    if not is_tested(vllm.__version__):
        log.warning(
            "vLLM is %s, not %s: callers' constraints are not limited, and LoRA, batches and "
            "sampling on CPU are left as they are",
            vllm.__version__,
            TESTED_VLLM,
        )
        return
    _limit_constraints()
    _allow_biases()
    _hold_batches()
    _tell_golden_answers()
    if current_platform.is_cpu():
        _change_cpu()


def _allow_amx() -> None:
    """Request AMX registers from Linux for this process. vLLM 0.32's attention uses them without a
    request. oneDNN requests them, but not for a single-token prompt, which it multiplies without
    AMX; an engine whose first prompt was one crashed with an illegal instruction."""
    import torch

    if torch.cpu.get_capabilities().get("amx_tile"):
        torch.cpu._init_amx()


def _limit_constraints() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.structured_output import StructuredOutputManager, backend_guidance

    from serving.vllm_plugin.patches import constraints

    for place, name in (
        (backend_guidance.GuidanceBackend, "compile_grammar"),
        (backend_guidance, "validate_guidance_grammar"),
        (StructuredOutputManager, "grammar_init"),
        (AsyncLLM, "add_request"),
    ):
        setattr(place, name, getattr(constraints, name))


def _allow_biases() -> None:
    """Let ``logit_bias`` and ``min_p`` pass (``patches.biases``, which the drafter applies)."""
    from vllm.sampling_params import SamplingParams

    setattr(SamplingParams, "_validate_spec_decode", lambda *_: None)  # noqa: B010


def _hold_batches() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    from serving.vllm_plugin.patches import priority

    for name in ("schedule", "update_from_output"):
        setattr(Scheduler, name, getattr(priority, name))


def _tell_golden_answers() -> None:
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

    from serving.vllm_plugin.patches.cards import show_available_models

    setattr(OpenAIServingModels, "show_available_models", show_available_models)  # noqa: B010


def _change_cpu() -> None:
    from vllm.platforms import current_platform

    platform = type(current_platform)
    setattr(platform, "get_punica_wrapper", classmethod(lambda _: LORA_WRAPPER))  # noqa: B010

    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.sample import rejection_sampler

    from serving.vllm_plugin.patches.batch import dispatch
    from serving.vllm_plugin.patches.sampling import apply_top_k_top_p, expand_batch_to_tokens

    setattr(CudagraphDispatcher, "dispatch", dispatch)  # noqa: B010
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
    setattr(rejection_sampler, "apply_top_k_top_p", apply_top_k_top_p)  # noqa: B010
