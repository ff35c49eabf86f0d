"""Kinds of attribution, one file each: ``kind(context, tap, cotangent, steps) -> (B, h, w, c)``."""
