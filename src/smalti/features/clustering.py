"""Self-labelling: clusters of image features as labels for unlabelled images, so that a prior can use guidance.

    f = features of smalti-vit / |f|,   centres by k-means over the training images,   label = index of nearest centre

Source: Hu et al. 2023, arXiv:2210.06462, section 3.2 (self-labelled guidance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from smalti.data import PackedImages
from smalti.errors import ConfigError, arg
from smalti.features.cache import collect
from smalti.features.extractor import extractor
from smalti.quantize.kmeans import kmeans
from smalti.quantize.search import nearest

MOST_GROUPS = 10_000
ITERATIONS = 30


def check_groups(groups: int, images: int | None = None) -> None:
    """Check the number of groups.

    Args:
        groups: number of clusters.
        images: number of training images; None if it is not known yet.

    Raises:
        ConfigError: groups is below 2, above `MOST_GROUPS`, or above the number of images.
    """
    most = MOST_GROUPS if images is None else min(MOST_GROUPS, images)
    if not 2 <= groups <= most:
        reason = "" if images is None else f", for there are {images:,} images to learn them from"
        raise ConfigError(f"{arg('groups')} is {groups}, but must be from 2 to {most}{reason}")


def group(
    sets: Sequence[PackedImages],
    groups: int,
    *,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[np.ndarray]:
    """Cluster index of every image.

    Args:
        sets: sets of images; the clusters are fitted on the first one.
        groups: number of clusters.
        device: device of the feature extractor.
        cache: the cache folder for features; None: that of the user.
        progress: called with (images done, total) for each set.

    Returns:
        (N,) int64 for each of the sets, in 0..groups-1.

    Raises:
        ConfigError: too many groups, or fewer images than groups.
    """
    check_groups(groups, len(sets[0]))
    network = extractor("smalti-vit", device=device)
    features = [F.normalize(collect(images, network, cache=cache, progress=progress), dim=1) for images in sets]
    centres = kmeans(features[0], groups, iterations=ITERATIONS, shared=False)
    return [nearest(rows, centres).numpy().astype(np.int64) for rows in features]
