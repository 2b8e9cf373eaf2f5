"""Single-label classification: one class per image."""
