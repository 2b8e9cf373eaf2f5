"""The page of a run: scores from `evaluate` and images from `explainers`, which must not see each other."""
