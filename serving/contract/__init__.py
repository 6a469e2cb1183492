"""What a model reads and writes: requests, prompts, outputs, checks, and the registry of tasks.

A leaf: it imports pydantic and Outlines, never torch, vLLM or FastAPI, and nothing of this project.
"""
