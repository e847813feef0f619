"""Checkpoints: self-describing safetensors files; and the resume state, a separate file.

The `smalti` entry of the header is the card as JSON:

    {"format": 2, "kind": "vqvae", "config": {...}, "classes": [...], "images_seen": ...,
     "spec": {"kind": "image", "channels": 3, "height": 32, "width": 32},
     "data": {"source": ..., "fingerprint": ...}, "version": ..., "license": ..., "digest": "sha256...",
     "tokenizer": the card of the VQ-VAE whose codes a prior models, or null}

The file of a prior includes the weights of its tokenizer, under `tokenizer.`, so it can generate images by itself. The
digest covers the canonical JSON of (format, kind, config, spec, classes; the same of the tokenizer) and the name, type,
shape and bytes of every tensor: it identifies the model, not the file. Loading is strict: missing and unexpected
tensors are errors.
Nothing is unpickled, and no memory is allocated beyond the verified size of the file.
Floats are stored as float32, or all as float16 to halve the size; they are loaded as float32 in both cases.
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
from smalti.config.parse import from_plain, to_plain
from smalti.config.run import RunConfig
from smalti.data.spec import ImageSpec, Spec, spec_from_plain, spec_to_plain
from smalti.errors import CheckpointError, ConfigError, command
from smalti.files import write_atomically
from smalti.runtime.digest import tensors_digest

FORMAT = 2
HEADER_LIMIT = 16 * 2**20  # bytes; headers have a few thousand
DEFAULT_LICENSE = "unspecified"


@dataclass(frozen=True)
class Card:
    """Metadata of a checkpoint.

    Attributes:
        kind: key in the registry of kinds, config/kinds.py: `vqvae`, `gan`, ...
        config: the full configuration of the training.
        spec: of what the model generates, or takes as input: for example, an image of one size.
        classes: class names, in the order of the labels; empty without labels.
        images_seen: number of training images so far.
        data: source and fingerprint of the training data.
        license: of the weights, as stated by the user.
        version: of smalti, at the time of writing.
        score: the latest score on the held-out set, {} without one.
        digest: sha256 of configuration and tensors; set by `write`.
        tokenizer: card of the VQ-VAE whose codes a prior models or a restorer predicts; None for other kinds.
    """

    kind: str
    config: RunConfig
    spec: Spec
    classes: tuple[str, ...]
    images_seen: int
    data: Mapping[str, Any]
    license: str = DEFAULT_LICENSE
    version: str = __version__
    score: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    digest: str = ""
    tokenizer: Card | None = None

    @property
    def image(self) -> ImageSpec:
        """The spec, if it is an image.

        Raises:
            CheckpointError: the model is for another kind of data.
        """
        if not isinstance(self.spec, ImageSpec):
            raise CheckpointError(f"this is a model of {self.spec.kind}, not of images; give a model of images")
        return self.spec


def build(card: Card) -> nn.Module:
    """Build the network that a card describes, without its weights."""
    tokenizer = None if card.tokenizer is None else build(card.tokenizer)
    module: nn.Module = card.config.kind.load_build()(card.config.model, card.spec, len(card.classes), tokenizer)
    return module


def digest(card: Card, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None) -> str:
    """The sha256 that identifies a model; see the module docstring.

    Args:
        entry: the card as stored in a file, whose configuration lacks settings added since; None: derived from `card`.
    """
    described = {"format": FORMAT, "kind": card.kind, "spec": spec_to_plain(card.spec), "classes": list(card.classes)}
    described["config"] = to_plain(card.config) if entry is None else entry["config"]
    if card.tokenizer is not None:
        inner = card.tokenizer
        config = to_plain(inner.config) if entry is None else entry["tokenizer"]["config"]
        described["tokenizer"] = [inner.digest, config, spec_to_plain(inner.spec), list(inner.classes)]
    return tensors_digest(tensors, header=json.dumps(described, sort_keys=True, separators=(",", ":")).encode())


def write(path: Path, module: nn.Module, card: Card, *, half: bool = False) -> Card:
    """Write a checkpoint, atomically.

    Args:
        half: store floats as float16; the digest is then that of the rounded weights.

    Returns:
        The card with its digest.

    Raises:
        OutputError: the disk is full or the path is not writable; an existing file is left intact.
    """
    # Contiguous, because safetensors does not support channels_last.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    card = dataclasses.replace(card, digest=digest(card, tensors))
    content = save(tensors, metadata={"smalti": json.dumps({"format": FORMAT} | card_to_plain(card), sort_keys=True)})
    write_atomically(path, lambda file: file.write(content))
    return card


def read_card(path: Path) -> Card:
    """Read the card of a checkpoint, without its tensors.

    Raises:
        CheckpointError: the file is not a smalti checkpoint, is truncated, or has an unsupported format.
    """
    return _parse_card(path, _read_header(path))


def read(path: Path) -> tuple[nn.Module, Card]:
    """Load a network, in eval mode on the CPU, and its card.

    Raises:
        CheckpointError: as `read_card`; or a tensor is missing, unexpected, of another shape, or was modified.
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
    # On the meta device no weights are allocated or initialised; the loaded tensors are assigned afterwards.
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
    """Read the JSON header of a safetensors file, after checking its size."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            total = os.fstat(file.fileno()).st_size
            if not 2 <= size <= HEADER_LIMIT or size + 8 > total:
                raise CheckpointError(
                    f"{path} is not a smalti checkpoint, or was cut short ({total} bytes); "
                    f"expected a .safetensors file written by {command('train')}"
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
        raise CheckpointError(f"{path} is not a smalti checkpoint: its header is not a list of tensors") from None
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


def card_to_plain(card: Card) -> dict[str, Any]:
    """A card as a JSON table, including the tokenizer's card."""
    plain = {field.name: to_plain(getattr(card, field.name)) for field in dataclasses.fields(card)}
    plain["spec"] = spec_to_plain(card.spec)
    plain["tokenizer"] = None if card.tokenizer is None else card_to_plain(card.tokenizer)
    return plain


def _card(path: Path, entry: dict[str, Any]) -> Card:
    """Parse a card from a header entry, including the tokenizer's card."""
    _check_format(path, entry.pop("format"), entry.get("version"))
    config = from_plain(RunConfig, entry.pop("config"))
    inner = entry.pop("tokenizer", None)
    tokenizer = None if inner is None else _card(path, {"format": FORMAT} | inner)
    spec, classes = spec_from_plain(entry.pop("spec")), tuple(entry.pop("classes"))
    card = Card(config=config, spec=spec, classes=classes, tokenizer=tokenizer, **entry)
    if (
        card.kind != config.recipe
        or not all(isinstance(name, str) for name in (*card.classes, card.license, card.version, card.digest))
        or not all(isinstance(table, dict) for table in (card.data, card.score))
        or type(card.images_seen) is not int
        or config.kind.tokenizer != (None if tokenizer is None else tokenizer.kind)
        or (tokenizer is not None and tokenizer.spec.shape[0] != spec.shape[0])
    ):
        raise CheckpointError(f"{path}: its card contradicts itself; it was changed or damaged")
    return card


def _check_format(path: Path, found: object, version: object) -> None:
    """Raise CheckpointError for another format, saying whether it is from an older or a newer version."""
    written = f"smalti {version}" if isinstance(version, str) else "another version"
    if type(found) is int and 0 < found < FORMAT:
        raise CheckpointError(
            f"{path} was written by {written}, before its release, in checkpoint format {found}, which is no longer "
            f"read (today's is {FORMAT}); train the model again"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has the checkpoint format {found!r}, but smalti {__version__} reads format {FORMAT}; "
            "install the version that wrote it" + (f" ({written})" if isinstance(version, str) else "")
        )


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the resume state, atomically: tensors and plain values, in torch's zip format."""
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
