"""Numbers about predictions, maps and features: numpy, scipy and scikit-learn, no JAX."""
