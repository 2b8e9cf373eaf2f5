"""The studio: data, training, results and predictions in the browser, on this machine."""
