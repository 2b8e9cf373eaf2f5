"""Search of images by words or by an image: an index of a folder, queries, and classes that were never trained."""
