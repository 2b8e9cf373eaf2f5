"""What a model is worth, counted on images it never saw; takes a Predictor and never trains."""
