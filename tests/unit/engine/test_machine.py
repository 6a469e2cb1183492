"""What a machine gives the engine, and what it lacks in one line."""

import ctypes
import os
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from serving.engine import machine
from serving.engine.machine import (
    SHARED_MEMORY,
    arithmetic,
    check_machine,
    driver_cuda,
    has_gpu,
    instructions,
    threads,
)
from serving.process import StartError

NEHALEM, CASCADE_LAKE, ZEN_4, SAPPHIRE_RAPIDS, NEOVERSE_N1, NEOVERSE_V1 = (
    frozenset(flags.split())
    for flags in (
        "sse4_2",
        "avx2 avx512f avx512bw avx512_vnni",
        "avx2 avx512f avx512_bf16",
        "avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8",
        "asimd fphp asimdhp",
        "asimd fphp asimdhp bf16 i8mm",
    )
)


@pytest.mark.parametrize("flags", [ZEN_4, SAPPHIRE_RAPIDS, NEOVERSE_V1])
def test_a_cpu_that_multiplies_bfloat16_computes_in_it(flags: frozenset[str]) -> None:
    dtype, reason, warning = arithmetic("auto", False, flags)
    assert (dtype, warning) == ("bfloat16", "")
    assert any(flag in reason for flag in flags)


@pytest.mark.parametrize("flags", [frozenset(), NEHALEM, CASCADE_LAKE, NEOVERSE_N1])
def test_a_cpu_that_would_emulate_it_computes_in_float32(flags: frozenset[str]) -> None:
    dtype, reason, warning = arithmetic("auto", False, flags)
    assert (dtype, warning) == ("float32", "")
    assert "emulate" in reason


@pytest.mark.parametrize(
    ("wanted", "flags", "better"),
    [
        ("bfloat16", NEHALEM, "float32"),
        ("bfloat16", CASCADE_LAKE, "float32"),
        ("float16", CASCADE_LAKE, "float32"),
        ("float16", ZEN_4, "bfloat16"),
    ],
)
def test_arithmetic_that_would_be_emulated_is_taken_with_a_warning(
    wanted: str, flags: frozenset[str], better: str
) -> None:
    dtype, _, warning = arithmetic(wanted, False, flags)
    assert dtype == wanted
    assert f"ENGINE_DTYPE={wanted}" in warning
    assert f"slower than {better}" in warning


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [("float32", NEHALEM), ("float32", ZEN_4), ("bfloat16", ZEN_4), ("float16", SAPPHIRE_RAPIDS),
     ("float16", NEOVERSE_N1)],
)  # fmt: skip
def test_arithmetic_of_the_cpu_s_own_is_taken_as_it_is(wanted: str, flags: frozenset[str]) -> None:
    assert arithmetic(wanted, False, flags)[::2] == (wanted, "")


@pytest.mark.parametrize("wanted", ["auto", "bfloat16", "float16"])
def test_a_gpu_s_arithmetic_is_the_model_s_or_as_told(wanted: str) -> None:
    assert arithmetic(wanted, True, NEHALEM)[::2] == (wanted, "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("model name\t: X\nflags\t\t: fpu avx2 avx512_bf16\nbugs\t: bf16\n", {"avx512_bf16"}),
        ("processor : 0\nFeatures\t: fp asimd bf16\n", {"bf16"}),
        ("flags\t\t: fpu avx2\n", set()),
        ("", set()),
        (None, set()),
    ],
)
def test_instructions_are_the_kernel_s_list(
    text: str | None, found: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert instructions({}) & {"avx512_bf16", "bf16"} == found


@pytest.mark.parametrize(
    ("limit", "dtype"),
    [("AVX2", "float32"), ("avx512_core", "float32"), ("AVX512_CORE_BF16", "bfloat16"),
     ("DEFAULT", "bfloat16"), ("", "bfloat16")],
)  # fmt: skip
def test_what_onednn_is_kept_from_does_not_count(
    limit: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : avx2 avx512_bf16 amx_bf16\n")
    flags = instructions({"ONEDNN_MAX_CPU_ISA": limit})
    assert "avx2" in flags
    assert arithmetic("auto", False, flags)[0] == dtype


@pytest.mark.parametrize(
    ("allowed", "physical", "quota", "engines", "expected"),
    [
        (2, 2, None, 1, 2),
        (8, 4, None, 1, 4),
        (64, 32, "250000 100000", 1, 2),
        (64, 32, "max 100000", 1, 32),
        (64, 32, "50000 100000", 1, 1),
        (3, 32, None, 1, 3),
        (8, 8, None, 2, 4),
        (2, 2, None, 4, 1),
        (2, None, None, 1, 1),
    ],
)
def test_a_thread_for_each_core_that_is_left_to_use(
    allowed: int,
    physical: int | None,
    quota: str | None,
    engines: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    monkeypatch.setattr("serving.process.CPU_LIMIT", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert threads(engines, hidden_size=2048) == expected
    assert threads(engines, hidden_size=256) == 1


def test_a_gpu_that_is_not_there_is_one_line() -> None:
    check_machine("gpu", gpu=True, cuda=None)
    check_machine("auto", gpu=False, cuda=None)
    with pytest.raises(StartError, match=r"ENGINE_DEVICE=gpu, but no NVIDIA GPU .* --gpus all"):
        check_machine("gpu", gpu=False, cuda=None)


def test_a_driver_that_is_too_old_is_told_from_none() -> None:
    check_machine("gpu", gpu=True, cuda=(13, 0))
    with pytest.raises(StartError, match=r"runs CUDA 12\.8 .* install driver 580 or newer"):
        check_machine("gpu", gpu=False, cuda=(12, 8))
    with pytest.raises(StartError, match="no NVIDIA GPU was found"):
        check_machine("gpu", gpu=False, cuda=(13, 0))  # a driver, and no GPU in this container


class Driver:
    def __init__(self, code: int, version: int) -> None:
        self._code, self._version = code, version

    def cuDriverGetVersion(self, found: object) -> int:
        ctypes.cast(cast(Any, found), ctypes.POINTER(ctypes.c_int))[0] = self._version
        return self._code


@pytest.mark.parametrize(
    ("code", "version", "expected"),
    [(0, 12080, (12, 8)), (0, 13000, (13, 0)), (0, 13010, (13, 1)), (100, 0, None)],
)
def test_the_driver_says_which_cuda_it_runs(
    code: int, version: int, expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert driver_cuda() is None  # this machine has none
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(code, version))
    assert driver_cuda() == expected


@pytest.mark.parametrize(
    ("capability", "words"),
    [((7, 0), "V100, has .* 7.0, .* needs 7.5"), ((7, 5), ""), ((9, 0), "")],
)
def test_a_gpu_that_is_too_old_is_one_line(
    capability: tuple[int, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_cpu_build(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", no_cpu_build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "V100")
    if not words:
        assert has_gpu()
        return
    with pytest.raises(StartError, match=words):
        has_gpu()


def test_no_libnuma_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NUMA", "libnuma.so.none")
    check_machine("auto", gpu=True, cuda=None)
    with pytest.raises(StartError, match="apt-get install libnuma1"):
        check_machine("auto", gpu=False, cuda=None)


def test_too_little_shared_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=2**20)
    monkeypatch.setattr("serving.engine.machine.shutil.disk_usage", {SHARED_MEMORY: usage}.get)
    with pytest.raises(StartError, match=r"/dev/shm has less than 16 MiB left: .*--shm-size"):
        check_machine("auto", gpu=False, cuda=None)
