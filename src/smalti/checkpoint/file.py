"""Checkpoints: one safetensors file that says what it is, and the resume state apart from it.

The header's `smalti` entry is JSON:

    {"format": 1, "kind": "vqvae", "config": {...}, "image": [3, 32, 32], "classes": [...], "images_seen": ...,
     "data": {"source": ..., "fingerprint": ...}, "version": ..., "license": ..., "digest": "sha256...",
     "tokenizer": the same of the VQ-VAE whose codes a prior knows, or null}

A prior's file holds its tokenizer's weights too, under `tokenizer.`, so that it makes images alone. The digest is over
the canonical JSON of (format, kind, config, image, classes, and of a tokenizer the same) and over every
tensor's name, type, shape and bytes: it names the model, not the file. Loading is strict: every tensor must be there,
none may be more.
Nothing is unpickled, and no memory is taken before the file is known to hold that much.
Floats are stored as float32, or all as float16 where half the size is worth 11 bits of precision; they are read as
float32 either way.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from smalti._version import __version__
from smalti.config.contrastive import ContrastiveConfig
from smalti.config.gan import GANConfig
from smalti.config.parse import from_plain, to_plain
from smalti.config.prior import PriorConfig
from smalti.config.run import RunConfig
from smalti.errors import CheckpointError, ConfigError
from smalti.files import write_atomically
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.gan.base import Generator
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.vision_transformer import VisionTransformer
from smalti.runtime.digest import tensors_digest

FORMAT = 1
HEADER_LIMIT = 16 * 2**20  # bytes; ours are a few thousand
DEFAULT_LICENSE = "unspecified"


@dataclass(frozen=True)
class Card:
    """What a checkpoint says about itself, beside its weights.

    Attributes:
        kind: the recipe that trained it, `vqvae`, `gan`, `contrastive` or `prior`.
        config: the whole configuration of the training.
        image: (channels, height, width) of its images.
        classes: names of the labels, in order; empty without labels.
        images_seen: training images up to here.
        data: source and fingerprint of the training data.
        license: of the weights, as the user stated it.
        version: of smalti, when it was written.
        score: the figure on held-out images at this point, {} when none was taken.
        digest: sha256 over configuration and tensors; filled in by `write`.
        tokenizer: of a prior, the card of the VQ-VAE whose codes it knows.
    """

    kind: str
    config: RunConfig
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    images_seen: int
    data: Mapping[str, Any]
    license: str = DEFAULT_LICENSE
    version: str = __version__
    score: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    digest: str = ""
    tokenizer: Card | None = None


def build(card: Card) -> nn.Module:
    """The network a card describes, with no weights loaded."""
    if isinstance(card.config.model, GANConfig):
        classes = len(card.classes) if card.config.model.conditional else 0
        return Generator(card.config.model, card.image, classes)
    if isinstance(card.config.model, ContrastiveConfig):
        return VisionTransformer(card.config.model.encoder, card.image)
    if isinstance(card.config.model, PriorConfig):
        assert card.tokenizer is not None
        tokenizer = build(card.tokenizer)
        assert isinstance(tokenizer, Autoencoder)
        return ImagePrior(card.config.model, tokenizer, card.image, len(card.classes))
    return Autoencoder(card.config.model, card.image[0])


def digest(card: Card, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None) -> str:
    """The sha256 that names a model; see the module's first lines.

    Args:
        entry: the card as a file has it, whose configurations lack the settings that came after it; None: the card's.
    """
    described = {"format": FORMAT, "kind": card.kind, "image": list(card.image), "classes": list(card.classes)}
    described["config"] = to_plain(card.config) if entry is None else entry["config"]
    if card.tokenizer is not None:
        inner = card.tokenizer
        config = to_plain(inner.config) if entry is None else entry["tokenizer"]["config"]
        described["tokenizer"] = [inner.digest, config, list(inner.image), list(inner.classes)]
    return tensors_digest(tensors, header=json.dumps(described, sort_keys=True, separators=(",", ":")).encode())


def write(path: Path, module: nn.Module, card: Card, *, half: bool = False) -> Card:
    """Write a checkpoint, atomically.

    Args:
        half: store floats as float16; the digest is then that of the rounded weights.

    Returns:
        The card with its digest.

    Raises:
        OutputError: the disk is full or the place cannot be written; the file that was there is left whole.
    """
    # A tensor seen channels_last is stored in the usual order: safetensors knows no other.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    card = dataclasses.replace(card, digest=digest(card, tensors))
    entry = {"format": FORMAT} | {field.name: to_plain(getattr(card, field.name)) for field in dataclasses.fields(card)}
    content = save(tensors, metadata={"smalti": json.dumps(entry, sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))
    return card


def read_card(path: Path) -> Card:
    """Everything a checkpoint says about itself; no tensor is read.

    Raises:
        CheckpointError: not a smalti checkpoint, cut short, or of a version this one does not know.
    """
    return _parse_card(path, _read_header(path))


def read(path: Path) -> tuple[nn.Module, Card]:
    """The network with its weights, in eval mode on the CPU, and its card.

    Raises:
        CheckpointError: as `read_card`; or a tensor is missing, too many, of another shape, or was changed.
    """
    header = _read_header(path)
    card = _parse_card(path, header)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({_first_line(error)}); was it cut short?"
        ) from None
    found = digest(card, tensors, json.loads(header["__metadata__"]["smalti"]))
    if found != card.digest:
        raise CheckpointError(
            f"{path} does not hold what it says: its digest is {card.digest[:16]}, its content's is {found[:16]}; "
            "it was changed or damaged, use another copy"
        )
    if all(tensor.dtype == torch.float16 for tensor in tensors.values() if tensor.is_floating_point()):
        tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    # On the meta device a network of any size costs nothing; the file's own tensors then take the places.
    with torch.device("meta"):
        module = build(card)
    expected = {name: _described(tensor) for name, tensor in module.state_dict().items()}
    shapes = {name: _described(tensor) for name, tensor in tensors.items()}
    if expected != shapes:
        wrong = sorted(set(expected.items()) ^ set(shapes.items()))[0][0]
        raise CheckpointError(
            f"{path}: tensor {wrong!r} is {shapes.get(wrong, 'missing')}, "
            f"but its configuration needs {expected.get(wrong, 'none of that name')}"
        )
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval().requires_grad_(False), card


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, its size checked before it is read."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            total = os.fstat(file.fileno()).st_size
            if not 2 <= size <= HEADER_LIMIT or size + 8 > total:
                raise CheckpointError(
                    f"{path} is not a smalti checkpoint, or was cut short ({total} bytes); "
                    "expected a .safetensors file written by smalti train"
                )
            header = json.loads(file.read(size))
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not a smalti checkpoint: its header is not JSON") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a smalti checkpoint: its header is not a table")
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    try:
        ends = [int(entry["data_offsets"][1]) for entry in entries]
    except (LookupError, TypeError, ValueError, OverflowError):
        raise CheckpointError(f"{path} is not a smalti checkpoint: its header is no list of tensors") from None
    if ends and 8 + size + max(ends) != total:
        raise CheckpointError(f"{path} was cut short: it holds {total} bytes of {8 + size + max(ends)}; copy it again")
    return header


def _parse_card(path: Path, header: Mapping[str, Any]) -> Card:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or "smalti" not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but smalti did not write it; expected a smalti checkpoint"
        )
    try:
        return _card(path, json.loads(metadata["smalti"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its card cannot be read ({_first_line(error)}); it was changed or damaged"
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration does not fit smalti {__version__}: {error}") from None


def _card(path: Path, entry: dict[str, Any]) -> Card:
    """What a header says, with the tokenizer in it."""
    version = entry.pop("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has the checkpoint format {version!r}, but smalti {__version__} reads format {FORMAT}; "
            "install the version that wrote it"
            + (f" (smalti {entry['version']})" if isinstance(entry.get("version"), str) else "")
        )
    config = from_plain(RunConfig, entry.pop("config"))
    image = tuple(entry.pop("image"))
    inner = entry.pop("tokenizer", None)
    tokenizer = None if inner is None else _card(path, {"format": FORMAT} | inner)
    card = Card(config=config, image=image, classes=tuple(entry.pop("classes")), tokenizer=tokenizer, **entry)
    if (
        not all(type(side) is int for side in image)
        or len(image) != 3
        or image[0] not in (1, 3, 4)
        or not all(1 <= side <= 16384 for side in image[1:])
    ):
        raise CheckpointError(f"{path}: its image shape is none that smalti makes")
    if (
        card.kind != config.recipe
        or not all(isinstance(name, str) for name in (*card.classes, card.license, card.version, card.digest))
        or not all(isinstance(table, dict) for table in (card.data, card.score))
        or type(card.images_seen) is not int
        or (card.kind == "prior") != (tokenizer is not None)
        or (tokenizer is not None and (tokenizer.kind != "vqvae" or tokenizer.image[0] != image[0]))
    ):
        raise CheckpointError(f"{path}: its card contradicts itself; it was changed or damaged")
    return card


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the resume state, atomically: tensors and plain values alone, in torch's zip format."""
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read the resume state; only tensors and plain values are accepted.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read the resume state {path}: {error.strerror}") from None
    except Exception as error:  # torch raises half a dozen types for a damaged file, some of them plain RuntimeError
        raise CheckpointError(
            f"the resume state {path} is damaged ({_first_line(error)}); start in a new folder"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
