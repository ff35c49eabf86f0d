"""SFEW 2.0: aligned faces from frames of films, with one of seven expressions each."""

from fer_jax.data.builders.sfew.sfew_dataset_builder import Builder as sfew  # noqa: F401
