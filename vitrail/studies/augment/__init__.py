"""Generated images as training images: admitted only if real accuracy rises, and none is a copy."""
