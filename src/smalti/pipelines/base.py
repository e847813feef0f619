"""Base class of the pipelines, and loading of trained models."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import nn

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.file import Card
from smalti.checkpoint.find import find_checkpoint
from smalti.checkpoint.zoo import refuse_output
from smalti.config.kinds import KINDS
from smalti.errors import CheckpointError, ConfigError, arg
from smalti.files import output_errors
from smalti.runtime.device import Machine

BLOCK = 16  # batch size of generation; fixed, because rounding depends on the shape of a batch
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Pipeline:
    """A trained model and its card; each kind of model has its own subclass.

    Attributes:
        module: the network, in eval mode.
        card: metadata of the checkpoint: settings, data, score, licence, digest.
        path: the file that it was loaded from.
        device: of the network.
        dtype: that the network computes in; its weights are float32.
    """

    # Ends the error "runs/x is a vqvae, which ..." for a model of another kind, and says which model to give instead.
    missing: ClassVar[str] = "cannot do this"

    def __init__(self, module: nn.Module, card: Card, path: Path, device: torch.device | str = "cpu") -> None:
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card, self.path, self.device = card, path, torch.device(device)
        self.dtype = torch.float32

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.path)!r}, device={str(self.device)!r})"

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        """Load a trained model of this kind.

        Args:
            path: a run folder (its last save), a checkpoint file, or `zoo:NAME`, which comes with smalti.
            device: auto (a GPU if available), cpu, cuda, cuda:1 or mps.

        Raises:
            CheckpointError: the file does not exist, cannot be read, or holds another kind of model.
            ConfigError: there is no such device.
        """
        file = find_checkpoint(path)
        kind = pipeline_class(checkpoint.read_card(file))
        if not issubclass(kind, cls):
            raise CheckpointError(
                f"{file} is for {kind.__name__}, not for {cls.__name__}; open it with smalti.{kind.__name__}"
            )
        model = load(file, device=device)
        assert isinstance(model, cls)
        return model

    def save_pretrained(self, path: str | os.PathLike[str], *, half: bool = False) -> Path:
        """Write the model and its card as one checkpoint file.

        Args:
            path: a file, or a folder in which `model.safetensors` is written.
            half: store floats as float16.

        Raises:
            OutputError: the disk is full, the path is not writable, or is `zoo:NAME`.
        """
        refuse_output(path, "path")
        target = Path(path)
        target = target / "model.safetensors" if target.is_dir() or not target.suffix else target
        with output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(target, self.module, self.card, half=half)
        return target

    def to(self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None) -> Self:
        """Move the network to a device, or change the dtype that it computes in.

        Raises:
            ConfigError: there is no such device, or the dtype is not supported.
        """
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"{arg('dtype')} is {dtype}, but must be one of {', '.join(map(str, DTYPES))}")
        if device is not None:
            self.device, _ = Machine(device=str(device)).resolve()
            self.module.to(self.device)
        self.dtype = self.dtype if dtype is None else dtype
        return self

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast context that the network runs in."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def provenance(self, **settings: object) -> dict[str, str]:
        """Provenance of a generated image as PNG text entries: the model, and the given settings that are not None."""
        card = self.card
        text = {"model": card.digest, "version": card.version, "license": card.license, **settings}
        return {f"smalti.{name}": _storable(str(value)) for name, value in text.items() if value is not None}


P = TypeVar("P", bound=Pipeline)


def _storable(text: str) -> str:
    """Escape what PNG text cannot store: NUL, and bytes of a file name that are not valid UTF-8."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def pipeline_class(card: Card) -> type[Pipeline]:
    """The pipeline class for a card."""
    found: type[Pipeline] = KINDS[card.kind].load_pipeline()
    return found


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Any:
    """Load a trained model as the pipeline of its kind: a `GAN`, `Autoencoder`, `Prior` or `Encoder`.

    Args:
        path: a run folder (its last save), a checkpoint file, or `zoo:NAME`, which comes with smalti.
        device: auto (a GPU if available), cpu, cuda, cuda:1 or mps.

    Raises:
        CheckpointError: the file does not exist or cannot be read.
        ConfigError: there is no such device.
    """
    resolved, _ = Machine(device=str(device)).resolve()
    file = find_checkpoint(path)
    module, card = checkpoint.read(file)
    return pipeline_class(card)(module, card, file, resolved)


def load_as(path: str | os.PathLike[str], wanted: type[P], *, device: torch.device | str = "cpu") -> P:
    """Load a model that must be of a given kind.

    Raises:
        CheckpointError: as `load`; or the model is of another kind.
        ConfigError: there is no such device.
    """
    return require(load(path, device=device), wanted)


def require(model: Pipeline, wanted: type[P]) -> P:
    """Check that a model is of a given kind, and return it.

    Raises:
        CheckpointError: it is of another kind; the message says what that kind cannot do.
    """
    if not isinstance(model, wanted):
        raise CheckpointError(f"{model.path} is a {model.card.kind}, which {wanted.missing}")
    return model
