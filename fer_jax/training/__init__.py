"""A run, from a config to an evaluated network."""
