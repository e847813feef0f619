"""Data augmentation: for discriminators (differentiable) and for contrastive training."""
