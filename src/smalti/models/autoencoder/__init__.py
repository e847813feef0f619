"""Autoencoders: encoders, decoders, and patch discriminators."""
