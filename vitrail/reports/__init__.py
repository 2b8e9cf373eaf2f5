"""Reports of runs and data: combine `evaluate` and `explainers`, which must not import each other."""
