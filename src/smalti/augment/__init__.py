"""Random changes of images, differentiable where they must be."""
