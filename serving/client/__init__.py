"""``routine531``: a client of the service for terminals and scripts."""
