"""Names, settings, errors and paths; all other packages use this one. No torch, no NumPy."""
