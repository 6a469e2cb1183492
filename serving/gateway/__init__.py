"""The HTTP gateway in front of the engine."""
