"""The shared parts of all architectures. They use torch only and depend on no architecture."""
