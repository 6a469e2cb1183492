"""vLLM's command line and environment for this deployment."""

import json
import os
import sys
from pathlib import Path

from serving.adapter import LORA_RANKS
from serving.engine.machine import Machine
from serving.engine.preflight import Checked
from serving.engine.settings import EngineSettings
from serving.process import memory_gib
from serving.tracing import TraceTarget
from serving.vllm_plugin import cap

DRAFTER = "serving.vllm_plugin.drafter.Drafter"
IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
FLAGS = ("--disable-uvicorn-access-log", "--enable-prompt-tokens-details", "--enable-lora")
CPU_OPTIONS: dict[str, str | int | float] = {
    # Requests that differ only in their last lines share the cached prefix, in whole blocks.
    # vLLM's default CPU block, 128 tokens, is longer than our prompts.
    "--block-size": 32,
    # Run the model in the engine core's process. vLLM's CPU default is a worker process; the two
    # busy-wait for each other on two cores that others need (vllm/platforms/cpu.py,
    # vllm/distributed/device_communicators/shm_broadcast.py). Set by class because vLLM overrides
    # the short name.
    "--distributed-executor-backend": IN_PROCESS,
}
SERVICE = "routine-engine"
"""Service name in traces, unless OTEL_SERVICE_NAME is set."""
MEMORY_SHARE = 0.95
"""Share of the container's or the machine's memory that the engine may take."""
LONG_PROMPT_TOKENS = 96
"""Tokens of one prompt that the engine reads in a step; no task's has more that are not cached."""


def arguments(
    settings: EngineSettings,
    model: Checked,
    machine: Machine,
    traces: TraceTarget | None,
) -> list[str]:
    """Build the command line of the engine's process.

    Args:
        settings: engine settings.
        model: what ``check_model`` returned.
        machine: hardware to run on.
        traces: destination of spans; None disables tracing.
    """
    modules = [f"{name}={model.adapters / name}" for name in model.lock.adapters]
    options: dict[str, str | int | float] = {
        "--model": str(model.base),
        "--served-model-name": model.lock.base.name,
        "--host": settings.engine_host,
        "--port": settings.engine_port,
        # vLLM's default is one per engine core; two on two CPU cores were no faster.
        "--api-server-count": 1,
        "--data-parallel-size": settings.engine_data_parallel,
        "--shutdown-timeout": settings.engine_drain_seconds,
        "--dtype": machine.dtype,
        "--max-model-len": settings.engine_max_model_len,
        "--max-num-seqs": settings.engine_max_num_seqs,
        "--max-num-batched-tokens": 8192,
        # Longer prompts are read in parts: the others need not wait for them.
        "--long-prefill-token-threshold": LONG_PROMPT_TOKENS,
        "--max-lora-rank": next(size for size in LORA_RANKS if size >= model.rank),
        # One more slot than adapters. On CPU, vLLM 0.32 applies the last slot's weights to requests
        # without an adapter; an empty slot's are zero (vllm/lora/ops/torch_ops/lora_ops.py).
        "--max-loras": len(modules) + 1,
        "--structured-outputs-config.backend": "guidance",
        "--scheduling-policy": "priority",
        "--generation-config": "vllm",
        "--load-format": "safetensors",
        "--middleware": "serving.vllm_plugin.guard.Guard",
    }
    if settings.engine_drafter == "on":
        options |= _drafting(settings)
    if traces:
        options["--otlp-traces-endpoint"] = traces.endpoint
    if machine.gpu:
        options["--gpu-memory-utilization"] = settings.engine_gpu_memory_share
    else:
        options |= CPU_OPTIONS
    command = [sys.executable, "-W", "ignore", "-m", "serving.engine.serve"]
    command += [*FLAGS, "--lora-modules", *modules]
    for name, value in options.items():
        command += [name, str(value)]
    return command


def _drafting(settings: EngineSettings) -> dict[str, str]:
    drafter = {
        "method": "custom_class",
        "model": DRAFTER,
        "num_speculative_tokens": settings.engine_draft_tokens,
    }
    return {
        "--speculative-config": json.dumps(drafter),
        "--per-request-spec-decode-metrics": "summary",  # the forward passes that an answer took
    }


def environment(
    settings: EngineSettings, machine: Machine, traces: TraceTarget | None
) -> dict[str, str]:
    """Return the environment variables to add for the engine's process."""
    variables = {
        "HF_HUB_OFFLINE": "1",  # preflight has already fetched the model
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # Longer than our clients keep idle connections. With the default of 5 s, vLLM closes
        # connections that have a pending request when its event loop is late.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
    }
    variables[cap.VARIABLE] = str(settings.engine_memory_gib or memory_gib() * MEMORY_SHARE)
    if traces:
        variables["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = traces.protocol
        variables["OTEL_SERVICE_NAME"] = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    if not machine.gpu:
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(settings.engine_cpu_kv_cache_gib)
        # vLLM sets these for its worker processes (vllm/utils/ompmultiprocessing.py): idle threads
        # release the core after 5 ms.
        variables |= {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
        # vLLM compiles a few functions to C++ on first use. The first request with ``logprobs``
        # blocked all others for 12 s; without a C++ compiler it crashed the engine.
        variables["TORCH_COMPILE_DISABLE"] = "1"
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(machine.threads))
        preload = [*map(str, _cpu_libraries()), os.environ.get("LD_PRELOAD", "")]
        variables["LD_PRELOAD"] = ":".join(filter(None, preload))
    return variables


def _cpu_libraries() -> list[Path]:
    """Return the libraries that vLLM recommends preloading on CPU: Intel's OpenMP (package
    ``intel-openmp``), and tcmalloc if installed."""
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    tcmalloc = sorted(Path("/usr/lib").glob("*-linux-gnu/libtcmalloc_minimal.so.4"))
    return [path for path in (openmp, *tcmalloc) if path.exists()]
