"""The shared vocabulary of the architectures: torch alone, and no knowledge of any of them."""
