"""Restoring pictures of any size with a trained restorer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smalti.config.restorer import RestorerConfig
from smalti.data.pictures import Picture, read_picture
from smalti.errors import ConfigError, DataError, arg
from smalti.models.restorer import restorer as networks
from smalti.pipelines.base import Pipeline
from smalti.pipelines.tiling import Work, apply_tiled

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

I = TypeVar("I", bound=Any)


class Restorer(Pipeline):
    """Pipeline of a model trained with the recipe `restore`.

    restorer = smalti.Restorer.from_pretrained("runs/denoise")
    clean = restorer.restore(noisy)          # in the form of what was given
    """

    missing: ClassVar[str] = "cannot restore pictures; give a model trained with a preset such as denoise"

    @property
    def degradation(self) -> str:
        """What the model was trained to undo, as config/degradation.py writes it; "pairs" if pairs said it."""
        pairs = self.card.config.data.targets is not None
        return "pairs" if pairs else cast(RestorerConfig, self.card.config.model).degradation

    @property
    def scale(self) -> int:
        """Size of a result in sizes of the picture given."""
        return self._network.scale

    @property
    def has_fidelity(self) -> bool:
        """Whether `restore` takes a fidelity."""
        return False

    @property
    def needs_hole(self) -> bool:
        """Whether the model fills holes, which have to be given."""
        return self._network.holes

    def restore(
        self,
        image: I,
        *,
        hole: Any = None,
        strength: float = 1.0,
        self_ensemble: bool = False,
        tile: int | None = None,
        fidelity: float | None = None,
    ) -> I | Picture:
        """Restore an image of any size; the result has the same form.

        Args:
            image: a Pillow image; a path or a `smalti.datasets.Picture`, which give a `Picture`; an array (H, W),
                (H, W, C) or (N, H, W, C) of uint8, uint16 or floats in [0, 1]; or a float tensor (C, H, W) or
                (N, C, H, W) in [-1, 1]. Alpha is carried over.
            hole: for a model that fills holes: a mask of the image's size, anything above half is missing.
            strength: from 0, the image as it was, to 1; above 1 the change is exaggerated, up to 2.
            self_ensemble: mean over the eight turned and mirrored images: slightly better, eight times as long.
            tile: side in pixels of the tiles in which the image is restored; None: chosen by what memory allows. It
                makes no difference to the result.
            fidelity: for a model of the preset `restore-codes`, see `CodeRestorer`.

        Raises:
            ConfigError: an argument is out of range or missing, or the image has a form that is not taken.
            DataError: a file cannot be read.
        """
        if not 0 <= strength <= 2:
            raise ConfigError(f"{arg('strength')} is {strength}, but must be from 0 to 2")
        if (hole is not None) != self.needs_hole:
            raise ConfigError(
                f"{self.path} fills holes, so give {arg('hole')}, a mask of what is missing"
                if self.needs_hole
                else f"{self.path} fills no holes; leave {arg('hole')} out"
            )

        model = self._with_fidelity(fidelity)

        def work(pixels: np.ndarray) -> np.ndarray:
            mask = None if hole is None else _mask(hole, pixels.shape[:2])
            return model._restored(pixels, mask, strength, self_ensemble, tile)

        return cast(I, _in_its_form(image, work))

    def _restored(
        self, pixels: np.ndarray, hole: np.ndarray | None, strength: float, ensemble: bool, tile: int | None
    ) -> np.ndarray:
        """(H, W, C) uint8 or uint16 -> (scale H, scale W, C)."""
        colours, alpha = (pixels[..., :3], pixels[..., 3:]) if pixels.shape[2] == 4 else (pixels, None)
        wanted, given = self._network.channels, colours.shape[2]
        if given == wanted:
            found = self._tiled(colours, hole, strength, ensemble, tile)
        elif given == 1:
            found = self._tiled(np.repeat(colours, 3, axis=2), hole, strength, ensemble, tile)
            luma = np.rint(found.astype(np.float64) @ np.array(LUMA)).astype(pixels.dtype)
            found = luma[..., None] if not self._colours else found
        else:  # a network of grey pictures takes colour by colour
            parts = [self._tiled(colours[..., c : c + 1], hole, strength, ensemble, tile) for c in range(given)]
            found = np.concatenate(parts, axis=2)
        return found if alpha is None else np.concatenate([found, self._enlarged(alpha)], axis=2)

    @property
    def _colours(self) -> bool:
        """Whether the model gives colours to grey pictures."""
        return "grey" in cast(RestorerConfig, self.card.config.model).degradation

    @torch.no_grad()
    def _tiled(
        self, colours: np.ndarray, hole: np.ndarray | None, strength: float, ensemble: bool, tile: int | None
    ) -> np.ndarray:
        network = self._network

        def work(images: Tensor, mask: Tensor | None) -> Tensor:
            given = images
            if mask is not None:  # mid grey, as in training
                images = torch.where(mask > 0.5, 0.0, images)
            with self.autocast():
                found = _ensemble(network, images, mask) if ensemble else network(images, mask).float()
            if strength != 1:
                before = networks.enlarged(given, network.scale)
                found = before + strength * (found - before)
            if mask is not None:  # what is there stays as it is
                found = torch.where(mask > 0.5, found, given)
            return found

        return self._in_tiles(work, colours, hole, tile)

    def _in_tiles(self, work: Work, colours: np.ndarray, hole: np.ndarray | None, tile: int | None) -> np.ndarray:
        network = self._network
        return apply_tiled(
            work, colours, hole, scale=network.scale, reach=network.reach, multiple=network.multiple, tile=tile,
            device=self.device,
        )  # fmt: skip

    def _with_fidelity(self, fidelity: float | None) -> Restorer:
        """The model that restores with a fidelity.

        Raises:
            ConfigError: it is out of range, or the model has none to choose.
        """
        if fidelity is not None:
            raise ConfigError(
                f"{self.path} has no fidelity to choose, which models of the preset restore-codes have; "
                f"leave {arg('fidelity')} out"
            )
        return self

    def _enlarged(self, alpha: np.ndarray) -> np.ndarray:
        if self.scale == 1:
            return alpha
        top = np.iinfo(alpha.dtype).max
        values = torch.from_numpy(alpha.astype(np.float32)).permute(2, 0, 1)[None]
        found = networks.enlarged(values, self.scale).round().clamp(0, top)
        return found[0].permute(1, 2, 0).numpy().astype(alpha.dtype)

    @property
    def _network(self) -> networks.Restorer:
        return cast(networks.Restorer, self.module)


def _ensemble(network: networks.Restorer, images: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the eight symmetries of the square."""
    total: Tensor | None = None
    for turns in range(4):
        for mirrored in (False, True):
            parts = [None if part is None else _moved(part, turns, mirrored) for part in (images, mask)]
            found = _moved_back(network(cast(Tensor, parts[0]), parts[1]).float(), turns, mirrored)
            total = found if total is None else total + found
    return cast(Tensor, total) / 8


def _moved(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(images.flip(3) if mirrored else images, turns, (2, 3))


def _moved_back(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    turned = torch.rot90(images, -turns, (2, 3))
    return turned.flip(3) if mirrored else turned


def _mask(hole: Any, size: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool of a mask in any form."""
    if isinstance(hole, Tensor):
        hole = hole.detach().cpu().numpy()
    if isinstance(hole, np.ndarray):
        values = np.squeeze(hole)
        top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
        found = values.astype(np.float64) > top / 2
    else:
        pixels = read_picture(hole, metadata=False).pixels
        found = pixels[..., 0] > np.iinfo(pixels.dtype).max / 2
    if found.shape != size:
        raise ConfigError(
            f"{arg('hole')} has {'x'.join(map(str, found.shape))} pixels, the image {'x'.join(map(str, size))}; they "
            "must have the same size"
        )
    return found


def _in_its_form(image: Any, work: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Apply `work`, a function of (H, W, C) uint8 or uint16, to an image in any form."""
    if isinstance(image, Tensor):
        return _of_tensor(image, work)
    if isinstance(image, np.ndarray):
        return _of_array(image, work)
    if isinstance(image, Image.Image):
        picture = read_picture(image)
        return dataclasses.replace(picture, pixels=work(picture.pixels)).to_pil()
    if isinstance(image, Picture | str | os.PathLike | bytes):
        picture = read_picture(image)
        return dataclasses.replace(picture, pixels=work(picture.pixels))
    raise ConfigError(f"{arg('image')} is a {type(image).__name__}; give a Pillow image, a path, an array or a tensor")


def _of_array(image: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if image.ndim == 4:
        return np.stack([_of_array(one, work) for one in image])
    pixels = image[..., None] if image.ndim == 2 else image
    if image.ndim not in (2, 3) or 0 in image.shape or pixels.shape[2] not in (1, 3, 4):
        raise ConfigError(
            f"{arg('image')} is an array of shape {image.shape}; give (H, W), (H, W, C) or (N, H, W, C) with 1, 3 or 4 "
            "channels"
        )
    if image.dtype in (np.uint8, np.uint16):
        found = work(pixels)
    elif image.dtype.kind == "f":
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise DataError(f"{arg('image')} holds floats outside of [0, 1]; divide 8-bit levels by 255")
        levels = np.rint(pixels.astype(np.float64) * 65535).astype(np.uint16)
        found = (work(levels).astype(np.float64) / 65535).astype(image.dtype)
    else:
        raise ConfigError(f"{arg('image')} is an array of {image.dtype}; give uint8, uint16 or floats in [0, 1]")
    return found[..., 0] if image.ndim == 2 and found.shape[2] == 1 else found


def _of_tensor(image: Tensor, work: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or not image.is_floating_point() or batch.shape[1] not in (1, 3, 4) or 0 in image.shape:
        raise ConfigError(
            f"{arg('image')} is a tensor of shape {tuple(image.shape)} and type {image.dtype}; give (C, H, W) or "
            "(N, C, H, W) floats in [-1, 1]"
        )
    levels = batch.detach().float().add(1).mul(65535 / 2).round().clamp(0, 65535).permute(0, 2, 3, 1).cpu().numpy()
    found = np.stack([work(one) for one in levels.astype(np.uint16)])
    result = torch.from_numpy(found.astype(np.float32)).permute(0, 3, 1, 2) / (65535 / 2) - 1
    result = result.to(image.device, image.dtype)
    return result[0] if image.ndim == 3 else result
