"""A trained model on disk: recipe, run folder, model file and proof."""
