"""Synthetic faces: a TFDS builder that draws its data, see README.md."""

from fer_jax.data.builders.synthetic_faces.synthetic_faces_dataset_builder import Builder as synthetic_faces  # noqa: F401
