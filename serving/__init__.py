"""Serving: tasks and output languages, the engine, and the gateway."""
