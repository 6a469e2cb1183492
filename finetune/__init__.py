"""Training: recipes, the base and adapter training loop, evaluation, export and the lock file."""
