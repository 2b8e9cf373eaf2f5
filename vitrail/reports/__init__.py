"""The page of a run: scores from `evaluate` and pictures from `explainers`, which must not see each other."""
