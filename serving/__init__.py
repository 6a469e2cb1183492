"""Serving: the contract, the engine and the gateway."""
