"""Animated WebP and GIF files that loop forever and carry metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from smalti.data.images import as_image, convert
from smalti.errors import DataError
from smalti.files import output_errors, write_atomically

ANIMATED = ("webp", "gif")
IMAGE_DESCRIPTION = 0x010E  # of Exif


def write_animation(
    path: Path, frames: np.ndarray, text: Mapping[str, str] | None = None, *, frame_ms: int = 60
) -> None:
    """Write frames as one animation, atomically.

    Args:
        path: ends in .webp (lossless, with transparency) or .gif (256 colours per frame, transparency composited over
            white because GIF has no partial transparency).
        frames: (N, H, W, C) uint8 with C in 1, 3, 4.
        text: metadata, written as JSON into the comment (GIF) or the Exif description (WebP).
        frame_ms: duration of each frame in milliseconds.

    Raises:
        DataError: frames of another type or shape, or another file extension.
        OutputError: the file cannot be written.
    """
    kind = path.suffix[1:].lower()
    if kind not in ANIMATED:
        raise DataError(f"an animation is a .webp or a .gif, not {path}")
    if frames.ndim != 4 or frames.shape[3] not in (1, 3, 4) or frames.dtype != np.uint8 or 0 in frames.shape:
        raise DataError(f"expected uint8 frames (N, H, W, 1, 3 or 4), not {frames.dtype} of shape {frames.shape}")
    pictures = [as_image(frame) for frame in frames]
    about = json.dumps(dict(text or {}))
    encoded = io.BytesIO()
    more: dict[str, object] = {"comment": about.encode()}
    if kind == "webp":
        exif = Image.Exif()
        exif[IMAGE_DESCRIPTION] = about
        more = {"lossless": True, "exif": exif.tobytes()}
        pictures = [picture.convert("RGB") if picture.mode == "L" else picture for picture in pictures]
    elif frames.shape[3] == 4:
        pictures = [convert(picture, 3) for picture in pictures]
    pictures[0].save(encoded, kind, save_all=True, append_images=pictures[1:], duration=frame_ms, loop=0, **more)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(encoded.getvalue()))
