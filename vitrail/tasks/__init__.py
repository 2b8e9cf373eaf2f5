"""Tasks: what a network predicts, with its targets, head, loss, prediction and evaluation."""
