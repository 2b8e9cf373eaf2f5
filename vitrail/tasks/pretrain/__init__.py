"""Masked pretraining: the pixels of hidden patches, from images without labels."""
