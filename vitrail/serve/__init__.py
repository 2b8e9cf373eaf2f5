"""Serve a model over HTTP: an answer in time, whatever the load."""
