"""RAF-DB, the basic set: faces from the web with one of seven expressions each."""

from fer_jax.data.builders.rafdb.rafdb_dataset_builder import Builder as rafdb  # noqa: F401
