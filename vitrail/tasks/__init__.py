"""What is predicted: the six seams, once a task."""
