"""Faces: the record, the builders, the order of rows and the augmentation."""
