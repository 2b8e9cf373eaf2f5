"""One module per architecture: settings, network and presets."""
