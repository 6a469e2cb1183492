"""How vLLM is started: settings, checks before the start, and its command line."""
