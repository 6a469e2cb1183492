"""Task 2: a month of training days."""
