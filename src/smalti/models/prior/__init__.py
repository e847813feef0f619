"""Priors over the codes of an autoencoder."""
