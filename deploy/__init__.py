"""Deployment and monitoring of the service."""
