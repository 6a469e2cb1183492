"""A load test of the running service, on Locust."""
