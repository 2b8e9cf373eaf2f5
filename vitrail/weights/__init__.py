"""Convert published checkpoints to our networks and back, with tables of tensor names."""
