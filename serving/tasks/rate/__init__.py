"""Task 1: the progression for one month."""
