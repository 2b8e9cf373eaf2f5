"""Published checkpoints into our networks and back, by tables."""
