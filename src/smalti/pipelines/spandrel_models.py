"""Restoration networks of the field (ESRGAN, SPAN, NAFNet, DRUNet, ...) by way of `spandrel`, as restorers.

spandrel recognises the architecture by the weights. Its networks take and give (1, C, H, W) in [0, 1]. How far most of
them see is not known, and some see everything, so tiles overlap by `OVERLAP` pixels: unlike our own networks' their
tiled result is near that of the whole picture, not equal to it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from smalti.errors import CheckpointError
from smalti.files import input_errors
from smalti.pipelines.restorer import Restorer

OVERLAP = 32  # pixels around a tile
LARGEST = 2 * 2**30  # bytes of a file of weights
PICKLES = (".pth", ".pt", ".ckpt")


class SpandrelNetwork(nn.Module):
    """A spandrel model with the attributes of `smalti.models.restorer.restorer.Restorer`.

    Args:
        descriptor: an `ImageModelDescriptor` of spandrel; what is used of it is `model`, `scale`, `input_channels`,
            `output_channels`, `size_requirements.multiple_of` and the call.
    """

    holes = False

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        self.channels, self.scale = int(descriptor.input_channels), int(descriptor.scale)
        self.multiple = max(1, int(getattr(descriptor.size_requirements, "multiple_of", 1) or 1))
        self.reach = OVERLAP
        self._call = descriptor

    def forward(self, images: Tensor, hole: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, C, scale H, scale W) float32; a size that it cannot take is padded."""
        found = [self._call((image[None].float() + 1) / 2).float() for image in images]
        return torch.cat(found) * 2 - 1


class SpandrelRestorer(Restorer):
    """A restorer whose network is another project's; it has no card."""

    def __init__(self, descriptor: Any, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(SpandrelNetwork(descriptor), cast(Any, None), path, device)

    @property
    def degradation(self) -> str:
        """Such files do not say it."""
        return "not known"

    @property
    def _colours(self) -> bool:
        return False


def is_foreign(path: Path) -> bool:
    """Whether a file holds weights that smalti did not write."""
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        return path.is_file()
    if suffix != ".safetensors" or not path.is_file():
        return False
    from safetensors import SafetensorError, safe_open

    with input_errors(path, CheckpointError):
        try:
            with safe_open(str(path), framework="pt", device="cpu") as file:
                return "smalti" not in (file.metadata() or {})
        except SafetensorError:
            return False  # the usual message says what is wrong with it


def load_foreign(path: Path, *, device: torch.device | str = "cpu") -> SpandrelRestorer:
    """Load a network of another project.

    Raises:
        CheckpointError: spandrel is not installed or does not import; the file is too large, is no plain table of
            tensors, or is of no network that restores images of 1 or 3 channels.
    """
    spandrel = _spandrel(path)
    weights = _weights(path)
    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    except Exception as error:  # each architecture has its own
        raise CheckpointError(f"spandrel does not know the network of {path} ({_first_line(error)})") from None
    return restorer_of(descriptor, path, device=device)


def restorer_of(descriptor: Any, path: Path, *, device: torch.device | str = "cpu") -> SpandrelRestorer:
    """A restorer of a spandrel model.

    Raises:
        CheckpointError: it does not restore images of 1 or 3 channels.
    """
    purpose = getattr(descriptor, "purpose", "?")
    if purpose == "Inpainting":
        raise CheckpointError(f"{path} fills holes; of spandrel's networks only those that take no mask are taken")
    channels = descriptor.input_channels, descriptor.output_channels
    if channels not in ((1, 1), (3, 3)):
        raise CheckpointError(f"{path} takes {channels[0]} channels and gives {channels[1]}; expected 1 or 3 of both")
    descriptor.eval()
    return SpandrelRestorer(descriptor, path, device)


def _spandrel(path: Path) -> Any:
    try:
        return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        reason = "is not installed" if error.name == "spandrel" else f"needs {error.name}, which is not installed"
    except Exception as error:  # torchvision beside a torch of another version raises RuntimeError
        reason = f"does not import ({_first_line(error)})"
    raise CheckpointError(
        f"{path} was not written by smalti, and spandrel, which loads such networks, {reason}; "
        "pip install 'smalti[spandrel]', which brings a torchvision that must fit the installed torch"
    ) from None


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file: of safetensors, or of a pickle in which nothing but tensors is loaded."""
    with input_errors(path, CheckpointError):
        size = path.stat().st_size
        if size > LARGEST:
            raise CheckpointError(f"{path} has {size:,} bytes; the limit is {LARGEST:,}")
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # UnpicklingError, RuntimeError, EOFError, and more on damaged files
            raise CheckpointError(f"{path} is no file of weights alone ({_first_line(error)})") from None
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()) or not found:
        raise CheckpointError(f"{path} holds no table of tensors")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
