"""Fixes for vLLM 0.32 on CPU, each with the bug it fixes; ``plugin`` applies them."""
