"""Names and layouts of the tensors of each source, as data that `vitrail.weights.rules` reads in both directions."""
