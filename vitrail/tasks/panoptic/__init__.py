"""Panoptic segmentation: every pixel has a class, and every thing is an object of its own."""
