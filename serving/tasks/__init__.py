"""What this deployment can be asked: a folder a task, and the registry of them.

Imports pydantic and Outlines, never torch, vLLM or FastAPI.
"""
