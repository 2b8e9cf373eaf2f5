"""Instances: the objects of an image, each with its class, its box and its mask."""
