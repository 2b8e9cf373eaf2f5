"""Data loading, from files on disk to batches: layouts, manifest, checks, splits, decoding, preprocessing."""
