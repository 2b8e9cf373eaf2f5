"""Whatever trains more than once."""
