"""The engine as a Ray Serve application: vLLM replicas with vLLM's API, behind Serve's proxy.

Options, checks and environment are those of a standalone engine (``serving.engine``). The Serve
configuration in this folder sets the number of replicas and their resources.
"""

import asyncio
import logging
import os
from dataclasses import fields
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from deploy.ray.versions import check_versions
from serving.engine.command import arguments, environment
from serving.engine.machine import Machine, choose
from serving.engine.preflight import Checked, NotFetched, check_model
from serving.engine.settings import EngineSettings
from serving.process import load
from serving.vllm_plugin import cap

NOT_OF_AN_ENGINE = {"model", "served_model_name", "host", "port", "distributed_executor_backend"}
"""vLLM options that Ray Serve sets itself."""
OF_A_NODE = ("HF_HUB_OFFLINE", cap.VARIABLE)
"""Variables of an engine that hold where it runs: what it needs is there, and its memory."""
FETCH_SECONDS = 30
"""Between two tries to fetch a model."""

log = logging.getLogger(__name__)


class _Server:
    """Stand-in for the HTTP server that vLLM's error handlers stop when the engine is dead. Under
    Ray there is no listening server, so this exits the process instead."""

    @property
    def should_exit(self) -> bool:
        return False

    @should_exit.setter
    def should_exit(self, _: bool) -> None:
        os._exit(1)


class Engine(LLMServer):
    """A replica that exits as soon as its engine is dead. Serve waits for three failed health
    checks; until then a dead replica fails faster than others respond and gets the most requests.

    What needs the model's files or the device happens here rather than in ``build``, which runs
    where neither may be: on a cluster's head node.

    Args:
        config: fields of ``LLMConfig``, but for the model and the options of vLLM.
        machine: what a replica has, but for its processor's data type.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: dict[str, Any], machine: Machine
    ) -> None:
        settings = load(EngineSettings)
        model = await found_model(settings)
        variables = environment(settings, machine, None)
        os.environ.update({name: variables[name] for name in OF_A_NODE})
        command = arguments(settings, model, choose(settings, machine.gpu, machine.threads), None)
        source = {"model_id": model.lock.base.name, "model_source": str(model.base)}
        options = engine_options(command[command.index("serving.engine.serve") + 1 :])
        config = {**config, "model_loading_config": source, "engine_kwargs": options}
        await super().__init__(LLMConfig(**config))

    async def __serve_build_asgi_app__(self) -> Any:
        app = await super().__serve_build_asgi_app__()
        app.state.server = _Server()
        return app

    async def check_health(self) -> None:
        try:
            await super().check_health()
        except Exception:  # noqa: BLE001 (an unhealthy replica must exit, whatever the error)
            os._exit(1)


async def found_model(settings: EngineSettings) -> Checked:
    """Return the model, fetched if it has to be. Serve starts a replica three times and then no
    more; a hub may be away for longer."""
    while True:
        try:
            return check_model(settings)
        except NotFetched as error:
            log.warning("%s; trying again in %d s", error, FETCH_SECONDS)
        await asyncio.sleep(FETCH_SECONDS)


def engine_options(command: list[str]) -> dict[str, Any]:
    """Parse vLLM's command line into the non-default options by name, as ``LLMConfig`` expects."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs, make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    given, default = (vars(parser.parse_args(words)) for words in (command, []))
    known = {field.name for part in (AsyncEngineArgs, FrontendArgs) for field in fields(part)}
    return {
        name: value
        for name, value in given.items()
        if value != default[name] and name in known - NOT_OF_AN_ENGINE
    }


def build(options: dict[str, Any]) -> Application:
    """Build the application that the Serve configuration refers to.

    Args:
        options: ``bundle``, a replica's resources by Ray resource name.

    Raises:
        ValueError: versions or settings are incompatible.
    """
    check_versions()
    settings = load(EngineSettings)
    gpu = "GPU" in options["bundle"]
    machine = choose(settings, gpu, max(1, int(options["bundle"]["CPU"])))
    variables = environment(settings, machine, None)
    for name in OF_A_NODE:
        del variables[name]
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": "base"},  # a replica reads its name
        "deployment_config": {"ray_actor_options": {"num_cpus": 0}},  # the bundle holds them all
        "placement_group_config": {"bundles": [options["bundle"]]},
        "accelerator_config": None if gpu else {"kind": "cpu"},
        "runtime_env": {"env_vars": variables},
    }
    deployment: Any = serve.deployment(serve.ingress()(Engine))
    given = Engine.get_deployment_options(LLMConfig(**config))
    application: Application = deployment.options(name="Engine", **given).bind(config, machine)
    return application
