"""Training: one loop for every method and both architectures."""
