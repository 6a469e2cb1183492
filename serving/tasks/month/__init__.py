"""Task 2: the training days for one month."""
