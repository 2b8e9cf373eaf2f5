"""Label errors of a run: find them, decide, refit the head, and compare on test images that played no part."""
