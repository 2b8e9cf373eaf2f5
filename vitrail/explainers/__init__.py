"""Explain predictions: where a network looked, on the pixels of the original image."""
