"""Scores and what they are worth, in NumPy and SciPy alone."""
