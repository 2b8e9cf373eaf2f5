"""How a model answers when its images are disturbed: corruptions, missing patches, attacks."""
