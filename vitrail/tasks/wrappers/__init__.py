"""Tasks that change how another task is trained, and forward everything else to it."""
