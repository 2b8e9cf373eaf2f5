"""What a trained model is on disk: recipe, folder, one-file model, proof."""
