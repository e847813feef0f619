"""Choice of the classes that the doctor drops: adjacent classes, or clusters of features if there are no labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smalti.runtime.rng import seeded_generator

CLUSTERS = 6  # clusters that replace classes if there are no labels
ENOUGH = 0.2  # minimum proportion of the images in the dropped classes


def classes_to_drop(classes: np.ndarray, features: Tensor) -> list[int]:
    """Labels of adjacent classes: the one farthest from the overall mean, then those nearest to it.

    Together they hold a third of the images or slightly more, but never more than half, as far as the sizes of the
    classes permit.

    Args:
        classes: (N,) integer labels.
        features: (N, D) floats.
    """
    labels, positions, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(labels), features.shape[1]).index_add_(0, torch.from_numpy(positions.reshape(-1)), features)
    means = sums / torch.from_numpy(sizes)[:, None]
    distances = (means - features.mean(dim=0)).norm(dim=1).numpy()
    small = 2 * sizes <= len(classes)
    if not small.any():
        return []
    first = np.where(small, distances, -1.0).argmax()
    dropped: list[int] = []
    images = 0
    for position in np.argsort((means - means[first]).norm(dim=1).numpy(), kind="stable"):
        if 2 * (images + sizes[position]) <= len(classes) and 3 * images < len(classes):
            dropped.append(int(labels[position]))
            images += int(sizes[position])
    return dropped


def classes_or_clusters(labels: np.ndarray | None, features: Tensor, seed: int) -> np.ndarray:
    """The labels; clusters of the features if there are none, or if too few images could be dropped by label."""
    if labels is not None and np.isin(labels, classes_to_drop(labels, features)).mean() >= ENOUGH:
        return labels
    return _clusters(features, seed)


def _clusters(features: Tensor, seed: int) -> np.ndarray:
    """(N,) cluster of each vector, by k-means with random initialisation and 20 Lloyd iterations."""
    generator = seeded_generator(seed, 14)
    centres = features[torch.randperm(len(features), generator=generator)[:CLUSTERS]].clone()
    nearest = torch.zeros(len(features), dtype=torch.int64)
    for _ in range(20):
        nearest = torch.cdist(features, centres).argmin(dim=1)
        for cluster in range(len(centres)):
            if (nearest == cluster).any():
                centres[cluster] = features[nearest == cluster].mean(dim=0)
    return nearest.numpy()
