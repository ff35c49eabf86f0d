"""A folder of labelled face images of one's own: a folder for each split, in it a folder for each class."""

from fer_jax.data.builders.faces_folder.faces_folder_dataset_builder import Builder as faces_folder  # noqa: F401
