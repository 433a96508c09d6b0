"""Reproducible experiments with the voting residual network for facial expressions in small images."""

__version__ = "0.1.0"
