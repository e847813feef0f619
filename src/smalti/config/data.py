"""Settings of the training data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number
from smalti.errors import ConfigError


@dataclass(frozen=True)
class DataConfig(ValidatedConfig):
    """The images of a training and their preprocessing. `size` is (height, width); None keeps the source's."""

    source: str = "emoji"
    # What should become of the images: a second source. Its images have the names of the first ones', or any if the
    # recipe learns without pairs.
    targets: str | None = None
    split: str | None = None
    size: tuple[int, int] | None = number(None, 1, 16384)
    resize: str = choice("cover", "contain", "stretch", "crop")
    channels: int | None = number(None, 1, 4)
    flip: bool = True  # mirror half of the images at random
    # Train on random windows of this side; the images themselves are then packed larger. None: whole images.
    crop: int | None = number(None, 1, 16384)
    shift: int = number(0, 0, 16383)  # translate each by up to this many pixels at random, with reflection padding

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels == 2:
            raise ConfigError("channels is 2, but must be 1 (grey), 3 (RGB) or 4 (RGBA)")
        if self.crop is not None and self.shift:
            raise ConfigError(f"shift is {self.shift} and crop {self.crop}; random windows move anyway, so give one")
