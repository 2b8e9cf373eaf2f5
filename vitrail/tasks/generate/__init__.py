"""Generation: images of one's own classes, made from noise."""
