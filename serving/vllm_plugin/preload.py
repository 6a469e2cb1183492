"""The engine core's process is forked from one that has imported what it needs.

vLLM 0.32 on CPU starts a new Python for the engine core once the API server has imported
everything: two times eight seconds, one after the other. Here a second process imports beside the
API server, and the core is forked from it (Python's ``forkserver``; vLLM has it for machines that
need not spawn, vllm/entrypoints/launchers/api_server/entry.py, but its CPU platform insists on
spawning, vllm/platforms/cpu.py). Nothing runs in that process but imports: no thread, no OpenMP.
"""

from __future__ import annotations

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
    "vllm.v1.structured_output.backend_outlines",
    "serving.vllm_plugin.fork_origin",
]
"""What an engine core imports until it is ready; one that is missing is left out."""


class _Context(ForkServerContext):
    """Processes forked from the one that has imported everything, with this one's environment: the
    other's is that of its start, and vLLM adds to its own until it starts an engine core."""

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
    """Whether the vLLM that is installed is the CPU build that this was tested with."""
    try:
        return version(CPU_BUILD) == TESTED_VLLM
    except PackageNotFoundError:
        return False


def start() -> None:
    """Begin to import, in a process of its own. It ends with the last of those that it serves."""
    forkserver.set_forkserver_preload(MODULES)
    forkserver.ensure_running()


def use() -> None:
    """Have vLLM fork engine cores from it, and look at a model that it has not met before in this
    process: it starts another Python for that, not to touch CUDA here."""
    from vllm.model_executor.models import registry
    from vllm.v1.engine import utils

    setattr(utils, "get_mp_context", _Context)  # noqa: B010
    setattr(registry, "_run_in_subprocess", _call)  # noqa: B010
