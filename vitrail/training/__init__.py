"""From a recipe to a run: plan, loop, listeners, report."""
