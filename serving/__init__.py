"""Serving: what is asked and answered, the engine, and the gateway."""
