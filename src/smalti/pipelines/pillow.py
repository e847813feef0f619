"""Registers the Pillow plugin, with models by their digests.

smalti.register_pillow(models=["runs/thumb"])
Image.open("cat.smi").show()
image.save("cat.smi", model="runs/thumb", quality=40)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from smalti.errors import ConfigError, arg

if TYPE_CHECKING:
    from smalti.codec.image_file import Model
    from smalti.pipelines.picture_codec import PictureCodec

SETTINGS = ("quality", "max_bytes", "bpp", "target_psnr", "effort", "tune", "exact")
METADATA = ("icc_profile", "exif", "xmp")


def register_pillow(*, models: Sequence[str | os.PathLike[str] | PictureCodec] = ()) -> None:
    """Make Pillow read the files of `Codec.compress` and archives, and write such files.

    `Image.open(path)` reads the header and the metadata alone; pixels are decoded when they are needed. An archive has
    `n_frames` images, and `seek(i)` goes to one. `image.save("x.smi", model=..., quality=...)` takes the settings of
    `Codec.compress`; without `model` it is the first of `models`.

    Args:
        models: codecs, or paths of models, that files may need; besides these, models in the folder of the file and in
            the zoo are found by digest. A second call replaces those of the first.
    """
    from smalti.codec.pillow_plugin import register

    register(_Models(models))


class _Models:
    """What the plugin asks for."""

    def __init__(self, models: Sequence[str | os.PathLike[str] | PictureCodec]) -> None:
        from smalti.pipelines.codec_models import CodecFinder

        self.finder = CodecFinder(models)

    def native(self, digest: bytes, source: str) -> tuple[int, int, int]:
        """(height, width, channels) of the images that a model was trained on."""
        channels, height, width = self.finder.card(digest, source=source, folders=_folders(source)).image.shape
        return height, width, channels

    def model(self, digest: bytes, source: str) -> Model:
        """A model by its digest."""
        return self.finder.find(digest, source=source, folders=_folders(source)).model

    def compress(self, image: Image.Image, options: dict[str, Any]) -> bytes:
        """The file of an image."""
        model = options.get("model", next(iter(self.finder.models), None))
        if model is None:
            raise ConfigError(f"no model was given to compress with; give {arg('model', 'FILE')} to save")
        given = {name: options[name] for name in METADATA if options.get(name)}
        if given:
            image = image.copy()
            image.info.update({name: _bytes(value) for name, value in given.items()})
        return self.finder.open(model).compress(image, **{name: options[name] for name in SETTINGS if name in options})


def _folders(source: str) -> list[str]:
    return [os.path.dirname(os.path.abspath(source))] if os.path.exists(source) else []


def _bytes(value: Any) -> bytes:
    """EXIF may be an object of Pillow's, XMP may be text."""
    if isinstance(value, str):
        return value.encode()
    return value.tobytes() if isinstance(value, Image.Exif) else bytes(value)
