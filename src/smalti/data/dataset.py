"""Interface of the datasets that recipes train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from smalti.data.spec import Spec


class Dataset(Protocol):
    """Examples with fixed indices, and a shuffled stream of them for training.

    `PackedImages` and `CodeSet` are datasets; pairs of images or audio clips are one too if they have these members.
    The return types of `batch` and `take` are up to the dataset and the recipes that train on it; labels are indices
    into `classes`.

    Attributes:
        spec: kind and shape of one example.
        source: where the examples come from, for messages and the checkpoint's card.
        split: the split of the source, or None.
        classes: class names, () without labels.
        fingerprint: hexadecimal digest of the examples; a training resumes only on data with the same fingerprint.
        provenance: further entries for the checkpoint's card, as JSON values.
    """

    @property
    def spec(self) -> Spec: ...
    @property
    def source(self) -> str: ...
    @property
    def split(self) -> str | None: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...

    def __len__(self) -> int: ...

    def batch(self, seed: int, images_seen: int, count: int, /) -> Any:
        """The examples at positions images_seen .. images_seen + count - 1 of this seed's shuffled stream.

        Must depend on nothing but the arguments, at any time and in any process, so that resuming is exact.
        """

    def take(self, indices: np.ndarray, /) -> Any:
        """The examples with these indices, in this order."""
