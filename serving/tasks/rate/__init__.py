"""Task 1: a month's progression."""
