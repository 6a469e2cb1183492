"""Prometheus, Grafana, and what is written for them."""
