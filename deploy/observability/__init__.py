"""Prometheus and Grafana configuration and tools."""
