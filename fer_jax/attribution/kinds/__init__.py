"""Kinds of attribution, one file each: ``kind(tap, cotangent, steps) -> (B, h, w, c)``, see ``forward.Tap``.

The map is the mean over c. A kind whose map is a sum over channels returns the terms of that sum, so its scale is 1 / c
of the sum's; one that ends in a ReLU of a sum, or that knows no channels, returns c = 1. A UserError says that a tap
lacks what the kind needs: attention, one pixel for each patch, the weights of a linear head.
"""
