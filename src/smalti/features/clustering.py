"""Images that look alike, as labels where a source has none: a prior with labels can be guided.

    f = features of smalti-vit / |f|,   centres by k-means over the training images,   label = the nearest centre

Source: Hu et al. 2023, arXiv:2210.06462, section 3.2 (self-labelled guidance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from smalti.data import PackedImages
from smalti.errors import ConfigError
from smalti.features.cache import collect
from smalti.features.extractor import extractor
from smalti.quantize.kmeans import kmeans
from smalti.quantize.search import nearest

MOST_GROUPS = 10_000
ITERATIONS = 30


def check_groups(groups: int, images: int | None = None) -> None:
    """See that images, so many if that is known, can be sorted into so many groups.

    Raises:
        ConfigError: they cannot.
    """
    most = MOST_GROUPS if images is None else min(MOST_GROUPS, images)
    if not 2 <= groups <= most:
        reason = "" if images is None else f", for there are {images:,} images to learn them from"
        raise ConfigError(f"--groups is {groups}, but must be from 2 to {most}{reason}")


def group(
    sets: Sequence[PackedImages],
    groups: int,
    *,
    device: str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[np.ndarray]:
    """The group of every image.

    Args:
        sets: images; the first ones are those that groups are learned from.
        cache: where features are kept.

    Returns:
        (N,) int64 for each of the sets, from 0 to groups - 1.

    Raises:
        ConfigError: fewer images than groups, or too many groups.
    """
    check_groups(groups, len(sets[0]))
    network = extractor("smalti-vit", device=device)
    features = [F.normalize(collect(images, network, cache=cache, progress=progress), dim=1) for images in sets]
    centres = kmeans(features[0], groups, iterations=ITERATIONS, shared=False)
    return [nearest(rows, centres).numpy().astype(np.int64) for rows in features]
