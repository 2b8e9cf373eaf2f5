"""Measure the speed of our networks and of other libraries."""
