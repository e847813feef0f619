"""Figures of arrays. Nothing here knows a model or a file."""
