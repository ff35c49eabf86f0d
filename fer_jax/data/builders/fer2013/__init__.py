"""FER2013: 35,887 faces of 48x48 pixels with seven expressions."""

from fer_jax.data.builders.fer2013.fer2013_dataset_builder import Builder as fer2013  # noqa: F401
