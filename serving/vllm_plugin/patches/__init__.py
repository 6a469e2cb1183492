"""Mends of vLLM 0.32 on CPU, each with what it mends; ``plugin`` puts them in place."""
