"""How the service is run: what watches it."""
