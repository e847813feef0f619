"""Building blocks that know nothing of GANs or VQ-VAEs."""
