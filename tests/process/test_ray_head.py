"""A Ray cluster's head, which has no GPU and runs no engine."""

import os
import subprocess
import sys

ON_A_HEAD = """
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform
vllm.platforms._current_platform = UnspecifiedPlatform()
import deploy.ray.app as app
deployment = app.build({"bundle": {"GPU": 1, "CPU": 4}})._bound_deployment
config, machine = deployment.init_args
print(deployment.name, config["placement_group_config"], machine.gpu)
variables = config["runtime_env"]["env_vars"]
assert not {"HF_HUB_OFFLINE", "ENGINE_MEMORY_GIB"} & set(variables), variables
"""


def test_a_head_without_a_gpu_builds_the_application_for_workers_that_have_one() -> None:
    """vLLM knows no device there."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ON_A_HEAD],
        # Whatever cluster there is, or was; and the model is where the workers are.
        env={**os.environ, "RAY_ADDRESS": "local", "MODEL": "/nowhere", "ADAPTERS": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stdout.splitlines()[-1:]
    assert last == ["Engine {'bundles': [{'GPU': 1, 'CPU': 4}]} True"], done.stderr[-3000:]
