"""A task as a user's package has it: task and defaults in one folder."""
