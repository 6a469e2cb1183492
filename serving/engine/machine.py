"""What the engine computes on: a GPU or a CPU, in which arithmetic, on how many threads.

Nothing here loads torch: it would take a second of every start.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from serving.engine.settings import EngineSettings
from serving.process import StartError, cores
from serving.vllm_plugin import CPU_BUILD

CPUINFO = Path("/proc/cpuinfo")
NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""By number type, the kernel's names of the instructions that multiply it; the last is ARM's."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
LIMITS_BELOW_BFLOAT16 = {
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
}  # fmt: skip
"""Values with which oneDNN, which multiplies for vLLM, leaves those instructions unused."""
NUMA = "libnuma.so.1"
SHARED_MEMORY = Path("/dev/shm")
NEEDED_SHARED_BYTES = 2**24
"""Semaphores and OpenMP's registrations took 0.1 MB on CPU; without room for them vLLM's processes
end in an error that names neither. A container has 64 MB if nobody says otherwise."""


@dataclass(frozen=True)
class Machine:
    """What this machine gives the engine."""

    gpu: bool
    dtype: str
    """For vLLM's ``--dtype``."""
    reason: str
    """Why that, in words."""
    warning: str
    """What makes it slow and could be set otherwise; empty if nothing."""
    threads: int
    """For OpenMP, on a CPU."""


def look(settings: EngineSettings) -> Machine:
    """This machine, as ``settings`` want it used.

    Raises:
        StartError: no GPU where one is wanted, no libnuma, or too little shared memory.
    """
    gpu = has_gpu()
    check_machine(settings.engine_device, gpu)
    return choose(settings, gpu, threads(settings.engine_data_parallel))


def choose(settings: EngineSettings, gpu: bool, threads: int) -> Machine:
    """A machine with these resources, in the arithmetic that ``settings`` and this CPU call for."""
    dtype, reason, warning = arithmetic(settings.engine_dtype, gpu, instructions(os.environ))
    return Machine(gpu, dtype, reason, warning, threads)


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used, by the vLLM that is installed."""
    try:
        version(CPU_BUILD)
    except PackageNotFoundError:
        import torch

        return torch.cuda.is_available()
    return False


def instructions(variables: Mapping[str, str]) -> frozenset[str]:
    """The CPU's instruction sets, by the kernel's names; none of those that ``NATIVE`` has where an
    environment variable keeps oneDNN from them."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    names = frozenset(found.partition(":")[2].split())
    if variables.get(ISA_LIMIT, "").upper() in LIMITS_BELOW_BFLOAT16:
        return names.difference(*NATIVE.values())
    return names


def arithmetic(wanted: str, gpu: bool, flags: frozenset[str]) -> tuple[str, str, str]:
    """Which number type to compute in. The figures behind it are in docs/benchmarks.md.

    Args:
        wanted: ``ENGINE_DTYPE``.
        gpu: whether one is used.
        flags: as ``instructions`` gives them.

    Returns:
        The type, why, and a warning, which is empty for a type that the CPU multiplies itself.
    """
    if gpu:
        return wanted, "the model's own" if wanted == "auto" else "as ENGINE_DTYPE says", ""
    if wanted == "auto":
        native = sorted(NATIVE["bfloat16"] & flags)
        if native:
            return "bfloat16", f"this CPU multiplies it: {native[0]}", ""
        return "float32", "this CPU would emulate bfloat16", ""
    if wanted in NATIVE and not NATIVE[wanted] & flags:
        better = arithmetic("auto", gpu, flags)[0]
        warning = (
            f"ENGINE_DTYPE={wanted} is emulated on this CPU and slower than "
            f"{better}: unset ENGINE_DTYPE"
        )
        return wanted, "as ENGINE_DTYPE says", warning
    return wanted, "as ENGINE_DTYPE says", ""


def threads(engines: int) -> int:
    """Threads for each of ``engines``: one for a physical core that this process may use. OpenMP
    itself counts a machine's processors, whatever a container's quota leaves of them."""
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, min(int(cores()), physical) // engines)


def check_machine(device: str, gpu: bool) -> None:
    """The machine has what vLLM needs before it loads anything.

    Args:
        device: ``auto`` or ``gpu``, as ``ENGINE_DEVICE`` has it.
        gpu: whether there is one.

    Raises:
        StartError: no GPU, no libnuma, or too little shared memory.
    """
    if device == "gpu" and not gpu:
        raise StartError(
            "ENGINE_DEVICE=gpu, but no NVIDIA GPU was found: install NVIDIA's driver and "
            "container toolkit, and give the container a GPU (docker run --gpus all; Kubernetes: "
            "nvidia.com/gpu), or use the engine's CPU image"
        )
    if not gpu:
        try:
            ctypes.CDLL(NUMA)
        except OSError as error:
            raise StartError(
                f"{NUMA} is missing, which vLLM needs on CPU: install it (Debian and Ubuntu: "
                "apt-get install libnuma1)"
            ) from error
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < NEEDED_SHARED_BYTES:
        raise StartError(
            f"{SHARED_MEMORY} has less than {NEEDED_SHARED_BYTES >> 20} MiB left: give the "
            "container more (docker run --shm-size 1g; Kubernetes: an emptyDir with medium Memory)"
        )
