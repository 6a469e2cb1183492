"""Hardware detection: GPU or CPU, data type and thread count.

Importing torch would add a second to every start, so this module avoids it on CPU.
"""

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
"""CPU flags of native multiplication, by data type; the last flag of each is ARM's."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
LIMITS_BELOW_BFLOAT16 = {
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
}  # fmt: skip
"""Values with which oneDNN, vLLM's matrix library on CPU, does not use those instructions."""
ONE_THREAD_HIDDEN_SIZE = 512
"""Hidden size up to which one thread computes a model. Of two threads, each waits at every
operation until the other has been given its processor; with 256, a request alone took as long, and
beside busy clients a fifth more were answered with one."""
CUDA = "libcuda.so.1"
"""Comes with NVIDIA's driver; its API is stable (cuDriverGetVersion, cuDeviceGetAttribute)."""
NEEDED_CUDA, NEEDED_DRIVER, OLDEST_CAPABILITY = 13, 580, (7, 5)
"""Of vLLM 0.32's builds: CUDA 13 runs on Turing (T4) and newer, not on Volta (V100)."""
NUMA = "libnuma.so.1"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (its size is read)
NEEDED_SHARED_BYTES = 2**24
"""Semaphores and OpenMP registrations took 0.1 MB on CPU. If they do not fit, vLLM's processes fail
with an error that mentions neither. Containers get 64 MB by default."""


@dataclass(frozen=True)
class Machine:
    """Hardware resources and data type for the engine."""

    gpu: bool
    dtype: str
    """Value of vLLM's ``--dtype``."""
    reason: str
    """Why this data type was chosen, for the log."""
    warning: str
    """A setting that makes the engine slow, and its fix; empty if none."""
    threads: int
    """OpenMP threads on a CPU."""


def look(settings: EngineSettings, hidden_size: int) -> Machine:
    """Inspect this machine and choose how to use it.

    Args:
        settings: engine settings.
        hidden_size: the base model's.

    Raises:
        StartError: a required GPU or libnuma is missing, or there is too little shared memory.
    """
    gpu = has_gpu()
    check_machine(settings.engine_device, gpu, driver_cuda())
    return choose(settings, gpu, threads(settings.engine_data_parallel, hidden_size))


def choose(settings: EngineSettings, gpu: bool, threads: int) -> Machine:
    """Return a machine with these resources and the data type for ``settings`` and this CPU."""
    dtype, reason, warning = arithmetic(settings.engine_dtype, gpu, instructions(os.environ))
    return Machine(gpu, dtype, reason, warning, threads)


def has_gpu() -> bool:
    """Return whether the installed vLLM can use an NVIDIA GPU.

    Raises:
        StartError: there is one, but it is too old.
    """
    try:
        version(CPU_BUILD)
    except PackageNotFoundError:
        import torch

        if not torch.cuda.is_available():
            return False
        found: tuple[int, int] = torch.cuda.get_device_capability()
        if found < OLDEST_CAPABILITY:
            name, has, needed = torch.cuda.get_device_name(), _dotted(found), OLDEST_CAPABILITY
            raise StartError(
                f"this GPU, {name}, has CUDA compute capability {has}, and vLLM here needs "
                f"{_dotted(needed)}: use a T4 or newer, or the engine's CPU image"
            ) from None
        return True
    return False


def _dotted(version: tuple[int, int]) -> str:
    return "{}.{}".format(*version)


def driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA version that the installed NVIDIA driver can run, (major, minor);
    None without a driver."""
    found = ctypes.c_int()
    try:
        if ctypes.CDLL(CUDA).cuDriverGetVersion(ctypes.byref(found)):
            return None
    except OSError:
        return None
    return found.value // 1000, found.value % 1000 // 10


def instructions(variables: Mapping[str, str]) -> frozenset[str]:
    """Return the CPU flags as the kernel names them, without those in ``NATIVE`` if an environment
    variable prevents oneDNN from using them."""
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
    """Choose the data type. docs/benchmarks.md has the measurements behind the choice.

    Args:
        wanted: value of ``ENGINE_DTYPE``.
        gpu: whether a GPU is used.
        flags: result of ``instructions``.

    Returns:
        The type, the reason, and a warning if the CPU emulates the type (else empty).
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


def threads(engines: int, hidden_size: int) -> int:
    """Return the threads per engine: one per physical core that this process may use, or one if the
    model is small. OpenMP's own default counts the machine's processors and ignores a container's
    CPU quota."""
    if hidden_size <= ONE_THREAD_HIDDEN_SIZE:
        return 1
    physical = psutil.cpu_count(logical=False) or 1
    return max(1, min(int(cores()), physical) // engines)


def check_machine(device: str, gpu: bool, cuda: tuple[int, int] | None) -> None:
    """Check vLLM's machine requirements before it loads anything.

    Args:
        device: value of ``ENGINE_DEVICE``, ``auto`` or ``gpu``.
        gpu: whether a GPU is available.
        cuda: result of ``driver_cuda``.

    Raises:
        StartError: a required GPU or libnuma is missing, the driver is too old, or there is too
            little shared memory.
    """
    if device == "gpu" and not gpu and cuda and cuda[0] < NEEDED_CUDA:
        raise StartError(
            f"ENGINE_DEVICE=gpu, but NVIDIA's driver on this node runs CUDA {_dotted(cuda)} at "
            f"most, and vLLM here needs {NEEDED_CUDA}: install driver {NEEDED_DRIVER} or newer"
        )
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
