"""Classifiers: a backbone that exposes taps and a head that turns features into logits."""
