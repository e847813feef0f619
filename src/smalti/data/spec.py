"""Specifications of examples: kind and shape of an image, a grid of codes or an audio clip.

A spec is plain data. A checkpoint stores the spec of its model's output; a recipe is given the spec of its dataset. To
add another kind of data, add a dataclass here and an entry in `SPECS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

LARGEST_SIDE = 16384  # pixels
LARGEST_SAMPLES = 2**32


@dataclass(frozen=True)
class ImageSpec:
    """An image: 1 (grey), 3 (RGB) or 4 (RGBA) channels; height and width in pixels."""

    kind: ClassVar[str] = "image"

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def check(self) -> None:
        """Raise ValueError for a shape that no dataset of smalti can have."""
        if self.channels not in (1, 3, 4) or not all(1 <= side <= LARGEST_SIDE for side in (self.height, self.width)):
            raise ValueError(f"no image has the shape {self.shape}")


@dataclass(frozen=True)
class CodeSpec:
    """A grid of codes: codebook size of each plane, (height, width) of the grid, and the image it encodes."""

    kind: ClassVar[str] = "codes"

    codebook_sizes: tuple[int, ...]
    grid: tuple[int, int]
    image: ImageSpec

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes, grid height, grid width)."""
        return len(self.codebook_sizes), *self.grid

    def check(self) -> None:
        """Raise ValueError for sizes that no quantizer of smalti can have."""
        self.image.check()
        sides = all(1 <= side <= LARGEST_SIDE for side in self.grid)
        if not self.codebook_sizes or min(self.codebook_sizes) < 1 or len(self.grid) != 2 or not sides:
            raise ValueError(f"no codes have the sizes {self.codebook_sizes} and the grid {self.grid}")


@dataclass(frozen=True)
class AudioSpec:
    """An audio clip: channels, samples per channel, sample rate."""

    kind: ClassVar[str] = "audio"

    channels: int
    samples: int
    sample_rate_hz: int

    @property
    def shape(self) -> tuple[int, int]:
        """(channels, samples)."""
        return self.channels, self.samples

    def check(self) -> None:
        """Raise ValueError for a shape that no dataset can have."""
        if not (1 <= self.channels <= 64 and 1 <= self.samples <= LARGEST_SAMPLES and self.sample_rate_hz >= 1):
            raise ValueError(f"no audio has the shape {self.shape} at {self.sample_rate_hz} Hz")


Spec = ImageSpec | CodeSpec | AudioSpec

# The keys are part of the file format and are never renamed.
SPECS: dict[str, type[Spec]] = {"image": ImageSpec, "codes": CodeSpec, "audio": AudioSpec}


def spec_to_plain(spec: Spec) -> dict[str, Any]:
    """Convert a spec to a JSON object; its entry `kind` names the type."""
    return {"kind": spec.kind, **dataclasses.asdict(spec)}


def spec_from_plain(plain: Any) -> Spec:
    """The inverse of `spec_to_plain`, for untrusted input.

    Raises:
        ValueError: unknown kind, missing or unknown entry, or value out of range.
    """
    if not isinstance(plain, Mapping) or plain.get("kind") not in SPECS:
        raise ValueError("its spec is of no known kind")
    kind = SPECS[plain["kind"]]
    values = {name: value for name, value in plain.items() if name != "kind"}
    if values.keys() != {entry.name for entry in dataclasses.fields(kind)}:
        raise ValueError(f"the entries of its {kind.kind} spec are not those of one")
    if kind is CodeSpec:
        image = spec_from_plain(values["image"])
        if not isinstance(image, ImageSpec):
            raise ValueError("its codes stand for no image")
        values = {"codebook_sizes": tuple(values["codebook_sizes"]), "grid": tuple(values["grid"]), "image": image}
    numbers = [value for value in values.values() if not isinstance(value, ImageSpec)]
    flat = [number for value in numbers for number in (value if isinstance(value, tuple) else (value,))]
    if not all(type(number) is int for number in flat):
        raise ValueError("a size in its spec is no whole number")
    spec = kind(**values)
    spec.check()
    return spec
