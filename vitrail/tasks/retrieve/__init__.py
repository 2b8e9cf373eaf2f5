"""Retrieval: images and captions as vectors of one space, so that either finds the other."""
