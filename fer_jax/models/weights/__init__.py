"""Families of pretrained networks, one file each: what ``models.pretrained`` reads a file of weights by."""
