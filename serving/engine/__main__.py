"""Start the engine: ``python -m serving.engine``. Checks first, then this process becomes vLLM."""

from __future__ import annotations

import os
import sys

from serving.contract.lock import LockError
from serving.engine.command import arguments, environment
from serving.engine.preflight import PreflightError, check_machine, check_model
from serving.engine.settings import EngineSettings
from serving.instruments import FOLDER, new_folder
from serving.startup import StartError, check_port, load, trace_target


def has_gpu() -> bool:
    """Whether torch, as it is installed, can use an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def main() -> None:
    try:
        settings = load(EngineSettings)
        traces = trace_target(os.environ)
        check_port(settings.engine_host, settings.engine_port, "ENGINE_PORT")
        model = check_model(settings)
        gpu = has_gpu()
        check_machine(settings.engine_device, gpu)
        folder = new_folder()
    except (PreflightError, LockError, StartError) as error:
        sys.exit(f"engine: {error}")
    print(
        f"engine: {model.lock.base.name} with adapters {', '.join(model.lock.adapters)} on "
        f"{'GPU' if gpu else 'CPU'}, port {settings.engine_port}; loading",
        flush=True,
    )
    command = arguments(settings, model.base, model.lock, model.rank, gpu, traces)
    variables = {**os.environ, **environment(settings, gpu, traces), FOLDER: folder}
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    main()
