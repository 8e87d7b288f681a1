"""Models: found, loaded, and asked for no more than is needed."""
