"""Names, settings, errors and places: what every other folder stands on. No torch, no NumPy."""
