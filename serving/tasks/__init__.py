"""The tasks of this deployment, one folder each, and their registry.

Imports pydantic and Outlines, never torch, vLLM or FastAPI.
"""
