"""Tasks that change the training of another task and forward everything else to it."""
