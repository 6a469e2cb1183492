"""Training: recipes, training loop for base and adapters, evaluation, export and lock file."""
