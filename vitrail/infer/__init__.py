"""Inference with trained models: predictors, backends and exported files."""
