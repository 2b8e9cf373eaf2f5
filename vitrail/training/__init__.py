"""Train a network from a recipe: plan, training loop, listeners and report."""
