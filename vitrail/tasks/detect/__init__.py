"""Detection: the boxes of objects in an image, with their classes."""
