"""Measurements of the running service, and how it is started for them."""
