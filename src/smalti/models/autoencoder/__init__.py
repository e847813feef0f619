"""Autoencoders: encoders, decoders, and the discriminators that judge them."""
