"""Google FEC: triplets of faces of which people chose the odd one out."""

from fer_jax.data.builders.fec.fec_dataset_builder import Builder as fec  # noqa: F401
