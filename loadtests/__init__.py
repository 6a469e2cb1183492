"""Performance measurements of the running service, and helpers to start it."""
