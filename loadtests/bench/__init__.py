"""What was measured of the service, and of other ways to do the same."""
