"""Run the startup checks, then replace this process with vLLM: ``python -m serving.engine``."""

import os
import sys

from serving.engine.command import arguments, environment
from serving.engine.machine import look
from serving.engine.preflight import PreflightError, check_model
from serving.engine.settings import EngineSettings
from serving.lock import LockError
from serving.metrics import FOLDER, new_folder
from serving.process import StartError, check_port, load
from serving.tracing import trace_target


def main() -> None:
    try:
        settings = load(EngineSettings)
        traces = trace_target(os.environ)
        check_port(settings.engine_host, settings.engine_port, "ENGINE_PORT")
        model = check_model(settings)
        machine = look(settings, model.hidden_size)
        folder = new_folder()
    except (PreflightError, LockError, StartError) as error:
        sys.exit(f"engine: {error}")
    where = "GPU" if machine.gpu else f"CPU, threads: {machine.threads}"
    print(
        f"engine: {model.lock.base.name} with adapters {', '.join(model.lock.adapters)} on "
        f"{where}, in {machine.dtype} ({machine.reason})",
        flush=True,
    )
    if machine.warning:
        print(f"engine: warning: {machine.warning}", flush=True)
    command = arguments(settings, model, machine, traces)
    variables = {**os.environ, **environment(settings, machine, traces), FOLDER: folder}
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    main()
