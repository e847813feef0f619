"""Random windows of larger images, in their own resolution: for codecs and restoration, which learn texture."""

from __future__ import annotations

import numpy as np

from smalti.data.packed import Batch, PackedImages, flips
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError, arg
from smalti.runtime.hashing import hash_integer, hashes


class CroppedImages:
    """Packed images whose batches hold one random window of each image; a `Dataset` like the images themselves.

    Args:
        images: the whole images.
        side: height and width of a window in pixels.
        flip: mirror half of the windows.
        unit: windows begin at multiples of this many pixels, for images that are that much larger than their partners.

    Raises:
        ConfigError: the images are smaller than a window.
    """

    def __init__(self, images: PackedImages, side: int, *, flip: bool = False, unit: int = 1) -> None:
        channels, height, width = images.shape
        if side > min(height, width):
            raise ConfigError(
                f"{arg('data.crop')} is {side}, but the images of {images.source} have only {height}x{width} pixels; "
                f"give at most {min(height, width)}"
            )
        self.images, self.side, self.flip, self.unit = images, side, flip, unit
        self.source, self.split, self.classes = images.source, images.split, images.classes
        self.fingerprint, self.provenance, self.skipped = images.fingerprint, images.provenance, images.skipped
        self.spec = ImageSpec(channels, side, side)
        self.places = ((height - side) // unit + 1, (width - side) // unit + 1)
        # As many windows as cover the image, and their mirror images.
        self.variants = (2 if flip else 1) * -(-height // side) * -(-width // side)

    def __len__(self) -> int:
        return len(self.images)

    def augmented(self, *, flip: bool = False, shift: int = 0) -> CroppedImages:
        """The same with mirrored windows. Windows move anyway, so `shift` must be 0."""
        assert shift == 0, "DataConfig refuses crop with shift"
        return CroppedImages(self.images, self.side, flip=flip, unit=self.unit)

    def batch(self, seed: int, images_seen: int, count: int) -> Batch:
        """The windows at positions images_seen .. images_seen + count - 1 of this seed's shuffled stream.

        Raises:
            ValueError: `images_seen` or `count` is negative.
            DataError: the packed file was truncated.
        """
        whole = self.images.batch(seed, images_seen, count)
        # Odd like the streams of flips and shifts, but another number.
        keys = hashes(hash_integer(hash_integer(seed) ^ hash_integer(5)), images_seen, count)
        down = (keys >> np.uint64(32)) % np.uint64(self.places[0])
        right = (keys & np.uint64(2**32 - 1)) % np.uint64(self.places[1])
        pixels = self._cut(whole.images, down.astype(np.int64), right.astype(np.int64))
        if self.flip and count:
            turned = flips(seed, images_seen, count)
            pixels[turned] = pixels[turned][:, :, ::-1]
        return Batch(pixels, whole.labels, whole.indices)

    def take(self, indices: np.ndarray) -> Batch:
        """The windows in the middle of the images with these indices."""
        whole = self.images.take(indices)
        down, right = (np.full(len(whole.images), (places - 1) // 2) for places in self.places)
        return Batch(self._cut(whole.images, down, right), whole.labels, whole.indices)

    def _cut(self, images: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        windows = np.empty((len(images), self.side, self.side, images.shape[3]), np.uint8)
        for window, image, y, x in zip(
            windows, images, (self.unit * down).tolist(), (self.unit * right).tolist(), strict=True
        ):
            window[:] = image[y : y + self.side, x : x + self.side]
        return windows
