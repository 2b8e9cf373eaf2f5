"""Instance segmentation: the objects of an image, each with its box, its class and its mask."""
