"""vLLM startup: settings, preflight checks and the command line."""
