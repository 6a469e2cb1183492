"""Benchmarks of the service and of alternatives."""
