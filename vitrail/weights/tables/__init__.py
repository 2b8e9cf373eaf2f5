"""How each source names and lays out its tensors: data, which `vitrail.weights.rules` reads both ways."""
