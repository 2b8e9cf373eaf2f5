"""Detection: the boxes of objects, their classes and scores."""
