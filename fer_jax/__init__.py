"""fer_jax: train, ablate, explain and honestly evaluate facial-expression-recognition models in JAX."""

__version__ = '0.1.0'
