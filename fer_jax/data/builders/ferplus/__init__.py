"""FER+ (FERPlus): the faces of FER2013 with ten votes each."""

from fer_jax.data.builders.ferplus.ferplus_dataset_builder import Builder as ferplus  # noqa: F401
