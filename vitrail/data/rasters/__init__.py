"""Georeferenced rasters: named bands of one or several files on one grid, labels on it, blocks that split it."""
