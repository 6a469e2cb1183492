"""What is changed inside vLLM is changed on one version alone."""

import logging

import pytest
import torch
import vllm
from vllm.platforms import current_platform
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.sample import rejection_sampler
from vllm.v1.structured_output import StructuredOutputManager, backend_guidance

from serving.vllm_plugin import TESTED_VLLM
from serving.vllm_plugin.patches import constraints
from serving.vllm_plugin.patches.batch import dispatch, vllm_dispatch
from serving.vllm_plugin.patches.sampling import expand_batch_to_tokens
from serving.vllm_plugin.plugin import LORA_WRAPPER, register

PLATFORM = type(current_platform)
EXPAND = rejection_sampler.expand_batch_to_tokens
APPLY = getattr(rejection_sampler, "apply_top_k_top_p")  # noqa: B009
COMPILE = backend_guidance.GuidanceBackend.compile_grammar
ORIGINAL = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM as it comes, and again afterwards."""
    monkeypatch.setattr(PLATFORM, "get_punica_wrapper", classmethod(lambda _: ORIGINAL))
    monkeypatch.setattr(CudagraphDispatcher, "dispatch", vllm_dispatch)
    monkeypatch.setattr(rejection_sampler, "expand_batch_to_tokens", EXPAND)
    monkeypatch.setattr(rejection_sampler, "apply_top_k_top_p", APPLY)
    monkeypatch.setattr(AsyncLLM, "add_request", constraints.vllm_add_request)
    monkeypatch.setattr(StructuredOutputManager, "grammar_init", constraints.vllm_grammar_init)
    monkeypatch.setattr(backend_guidance.GuidanceBackend, "compile_grammar", COMPILE)
    monkeypatch.setattr(backend_guidance, "validate_guidance_grammar", constraints.vllm_validate)
    monkeypatch.setattr(PLATFORM, "is_cpu", lambda _: True)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)


def test_this_environment_has_the_version_that_was_tested() -> None:
    assert vllm.__version__ == TESTED_VLLM


@pytest.mark.parametrize("version", [TESTED_VLLM, f"{TESTED_VLLM}+cpu", f"{TESTED_VLLM}+cu129"])
def test_lora_batches_and_sampling_on_cpu_are_ours_on_the_tested_version(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm, "__version__", version)
    register()
    assert current_platform.get_punica_wrapper() == LORA_WRAPPER
    assert CudagraphDispatcher.dispatch is dispatch
    assert rejection_sampler.expand_batch_to_tokens is expand_batch_to_tokens
    assert AsyncLLM.add_request is constraints.add_request
    assert not caplog.records


@pytest.mark.parametrize(("has_it", "asked"), [(True, 1), (False, 0)])
def test_amx_s_registers_are_asked_for_where_there_are_any(
    has_it: bool, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_tile": has_it})
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: calls.append("asked"))
    register()
    assert len(calls) == asked


def test_another_version_keeps_its_own_and_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    register()
    assert current_platform.get_punica_wrapper() == ORIGINAL
    assert CudagraphDispatcher.dispatch is vllm_dispatch
    assert rejection_sampler.expand_batch_to_tokens is EXPAND
    assert AsyncLLM.add_request is constraints.vllm_add_request
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "0.33.0" in record.message and TESTED_VLLM in record.message


def test_a_gpu_keeps_its_own_and_limits_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLATFORM, "is_cpu", lambda _: False)
    register()
    assert current_platform.get_punica_wrapper() == ORIGINAL
    assert CudagraphDispatcher.dispatch is vllm_dispatch
    assert rejection_sampler.expand_batch_to_tokens is EXPAND
    assert AsyncLLM.add_request is constraints.add_request
