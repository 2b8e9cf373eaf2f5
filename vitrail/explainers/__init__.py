"""What a network looked at, on the pixels of the original image."""
