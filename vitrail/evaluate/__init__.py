"""Evaluate models on images they were not trained on. Uses a Predictor and never trains."""
