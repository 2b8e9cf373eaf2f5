"""What a model is worth, counted on pictures it never saw; takes a Predictor and never trains."""
