"""Conversion of images between the forms that users pass or request and the arrays that pipelines work with.

    in     a PIL image, a path, a uint8 array (H, W, C) or (N, H, W, C), a float tensor (N, C, H, W) in [-1, 1],
           or a sequence of images of one size
    out    "numpy": (N, H, W, C) uint8; "pil": a list of PIL images; "tensor": (N, C, H, W) float32, with gradients

PIL images and files are converted to the model's channels by the rules of `smalti.data.images`; arrays and tensors are
not converted and must have the right number of channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smalti.data.images import ImageLike, to_array
from smalti.errors import ConfigError, arg
from smalti.runtime.pixels import to_pixels, to_tensor

ImagesLike: TypeAlias = ImageLike | Tensor | Sequence[ImageLike]
Output: TypeAlias = Literal["numpy", "pil", "tensor"]
# Depends on `output`: an array, a list of PIL images or a tensor.
Pictures: TypeAlias = Any

OUTPUTS = ("numpy", "pil", "tensor")


def read_images(images: ImagesLike, *, channels: int, owner: object) -> np.ndarray | Tensor:
    """Convert images in any form to one batch.

    Args:
        channels: number of channels that the model takes.
        owner: the model's file, for messages.

    Returns:
        (N, H, W, C) uint8, or the float tensor (N, C, H, W) that was given.

    Raises:
        ConfigError: an array or tensor has the wrong shape or type, or the images differ in size.
        DataError: a file or PIL image cannot be converted.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point() or 0 in images.shape:
            raise ConfigError(
                f"found a tensor of shape {tuple(images.shape)} and type {images.dtype}; {owner} takes "
                f"(N, {channels}, H, W) floats in [-1, 1]"
            )
        return images
    if isinstance(images, np.ndarray):
        batch = images[None] if images.ndim == 3 else images
        if batch.ndim != 4 or batch.shape[3] != channels or batch.dtype != np.uint8 or 0 in batch.shape:
            raise ConfigError(
                f"found images of shape {images.shape} and type {images.dtype}; "
                f"{owner} takes (N, H, W, {channels}) uint8"
            )
        return batch
    listed: Sequence[ImageLike] = [images] if isinstance(images, Image.Image | str | os.PathLike) else images
    arrays = [to_array(image, channels=channels) for image in listed]
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) != 1:
        found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)) or "none"
        raise ConfigError(f"the images of one call must have one size, but these have {found}; give them one at a time")
    return np.stack(arrays)


def read_image(image: ImageLike | Tensor, *, shape: tuple[int, int, int], owner: object) -> np.ndarray:
    """Convert one image in any form to (H, W, C) uint8.

    Args:
        shape: (channels, height, width) that the model generates.
        owner: the model's file, for messages.

    Raises:
        ConfigError: the image has another shape.
        DataError: a file or PIL image cannot be converted.
    """
    channels, height, width = shape
    if isinstance(image, Tensor):
        batch = image[None] if image.ndim == 3 else image
        array = to_pixels(batch)[0] if batch.ndim == 4 and len(batch) == 1 else np.empty(tuple(image.shape), np.float32)
    elif isinstance(image, np.ndarray):
        array = image
    else:
        array = to_array(image, channels=channels)
    if array.shape != (height, width, channels) or array.dtype != np.uint8:
        found = "x".join(map(str, array.shape))
        raise ConfigError(f"found an image of {found} ({array.dtype}); {owner} makes {height}x{width}x{channels}")
    return array


def check_output(output: str) -> None:
    """Raise ConfigError if the output form is unknown."""
    if output not in OUTPUTS:
        raise ConfigError(f"{arg('output')} is {output!r}, but must be one of {', '.join(OUTPUTS)}")


def from_tensor(images: Tensor, output: Output) -> Pictures:
    """Convert images (N, C, H, W) in [-1, 1] to the output form; only "tensor" preserves gradients."""
    return images if output == "tensor" else from_array(to_pixels(images), output)


def from_array(images: np.ndarray, output: Output, device: torch.device | str = "cpu") -> Pictures:
    """Convert images (N, H, W, C) uint8 to the output form."""
    if output == "tensor":
        return to_tensor(images, device)
    if output == "pil":
        return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images]
    return images
