"""Scores, their confidence intervals and calibration. Only NumPy and SciPy."""
