"""AffectNet: faces from the web with expression, valence and arousal by hand, in either release."""

from fer_jax.data.builders.affectnet.affectnet_dataset_builder import Builder as affectnet  # noqa: F401
