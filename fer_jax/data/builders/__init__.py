"""TFDS builders, one folder each; the folder name is the data set name."""
