"""Speech emotion recognition with the raters' disagreement, in JAX."""

__version__ = "0.1.0"
