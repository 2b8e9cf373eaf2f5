"""A trained model for other programs, written only after it was proven to answer as the model does."""
