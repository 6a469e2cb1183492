"""Forks engine cores from a process that has already imported their modules.

On CPU, vLLM 0.32 starts a new Python for the engine core after the API server has finished its
imports: eight seconds each, in sequence. This module imports in a second process in parallel and
forks the core from it with Python's ``forkserver``. vLLM supports that where spawning is not
required (vllm/entrypoints/launchers/api_server/entry.py), but its CPU platform forces spawning
(vllm/platforms/cpu.py). The second process only imports: it has no threads and no OpenMP.
"""

import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from serving.vllm_plugin import CPU_BUILD, TESTED_VLLM

MODULES = [
    "serving.engine.serve",
    "serving.vllm_plugin.drafter",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.transformers",
    "serving.vllm_plugin.patches.constraints",
    "llguidance.hf",
    "llguidance.torch",
    "serving.vllm_plugin.fork_origin",
]
"""Modules an engine core imports before it is ready; missing ones are skipped."""


class _Context(ForkServerContext):
    """Forks from the preloaded process but uses this process's environment: the other's dates from
    its start, and vLLM adds variables until it starts an engine core."""

    def Process(  # type: ignore[override]
        self, *, target: Callable[..., object], name: str, kwargs: Mapping[str, Any]
    ) -> ForkServerProcess:
        arguments = (dict(os.environ), target, kwargs)
        return ForkServerProcess(target=_with_environment, name=name, args=arguments)


def _with_environment(
    variables: Mapping[str, str], target: Callable[..., object], kwargs: Mapping[str, Any]
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    target(**kwargs)


def _call(function: Callable[[], Any]) -> Any:
    return function()


def is_tested() -> bool:
    """Return whether the installed vLLM is the tested CPU build."""
    try:
        return version(CPU_BUILD) == TESTED_VLLM
    except PackageNotFoundError:
        return False


def start() -> None:
    """Start importing in a separate process, which exits with the last process that uses it."""
    forkserver.set_forkserver_preload(MODULES)
    forkserver.ensure_running()


def use() -> None:
    """Make vLLM fork engine cores from the preloaded process and inspect unknown models in this
    process. By default it inspects them in another Python to avoid initializing CUDA."""
    from vllm.model_executor.models import registry
    from vllm.v1.engine import utils

    setattr(utils, "get_mp_context", _Context)  # noqa: B010
    setattr(registry, "_run_in_subprocess", _call)  # noqa: B010
