"""From files on disk to batches: layouts, manifest, doctor, split, decoding, preprocessing."""
