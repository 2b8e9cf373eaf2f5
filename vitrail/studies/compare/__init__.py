"""The duel: which of several networks is better on a user's own images, and how far the difference can be trusted."""
