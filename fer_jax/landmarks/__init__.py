"""Landmarks and the maps drawn from them. numpy only: nothing here imports JAX."""
