"""One page a paper: settings, network, presets."""
