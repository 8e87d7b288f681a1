"""A run is a folder of facts: every number shown later is computed from it."""
