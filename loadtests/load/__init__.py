"""Locust load test of the running service."""
