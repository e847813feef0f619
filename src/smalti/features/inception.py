"""The Inception network of the Frechet Inception distance: Inception v3 as in the TensorFlow graph of 2015-12-05.

    stem    299 -> 149x149x32 -> 147x147x32 -> 147x147x64 -> pool 73 -> 73x73x80 -> 71x71x192 -> pool 35
    35x35   Mixed_5b 256, Mixed_5c 288, Mixed_5d 288
    17x17   Mixed_6a 768 (halves), Mixed_6b .. Mixed_6e 768
    8x8     Mixed_7a 1280 (halves), Mixed_7b 2048, Mixed_7c 2048
    pool3   mean over 8x8: the 2048 features;   logits = W pool3 for 1008 classes

Every convolution is followed by batch normalisation (epsilon 0.001) and ReLU.  The graph differs from Inception v3 as
published in ways that affect the distance:

- average pooling excludes the padding: it divides by the number of pixels inside the image;
- the pooling of the last block, Mixed_7c, is max pooling, where the paper has average pooling;
- inputs are (x - 128) / 128 for x in 0..255, in TensorFlow, torch-fidelity and here; pytorch-fid uses 2x/255 - 1, which
  is equal for black and 1/128 brighter for white;
- the Inception score uses W pool3 without the bias of the last layer.

Sources: Szegedy et al. 2016, arXiv:1512.00567, table 1 and figures 5 to 7; Heusel et al. 2017, arXiv:1706.08500 (FID);
Salimans et al. 2016, arXiv:1606.03498 (score).  Parameters have the names of pytorch-fid, so that its weights file can
be read.  Layout: (B, 3, 299, 299) float32.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import CheckpointError, ConfigError, DataError, arg
from smalti.files import input_errors, output_errors, write_atomically

SIZE = 299
DIMENSION = 2048
CLASSES = 1008
FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # the file name ends with its first digits
_DOWNLOAD_LIMIT = 128 * 2**20  # the file has 95,628,359 bytes
_CHUNK = 2**20

Pool = Callable[[Tensor], Tensor]
Layer = tuple[str, int, int | tuple[int, int]]  # name, output channels, kernel (height, width)
Fork = tuple[Layer, ...]  # parallel layers on the same input
Branch = tuple[Layer | Fork | Pool, ...]  # applied in sequence


def average_pool(values: Tensor) -> Tensor:
    """3x3 average pooling of stride 1, excluding the padding."""
    return F.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)


def maximum_pool(values: Tensor) -> Tensor:
    """3x3 max pooling of stride 1."""
    return F.max_pool2d(values, 3, stride=1, padding=1)


def halving_pool(values: Tensor) -> Tensor:
    """3x3 max pooling of stride 2, without padding."""
    return F.max_pool2d(values, 3, stride=2)


def _block_5(pool_channels: int) -> tuple[Branch, ...]:
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        (average_pool, ("branch_pool", pool_channels, 1)),
    )


def _block_6(narrow: int) -> tuple[Branch, ...]:
    wide, high = (1, 7), (7, 1)
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", narrow, 1), ("branch7x7_2", narrow, wide), ("branch7x7_3", 192, high)),
        (
            ("branch7x7dbl_1", narrow, 1),
            ("branch7x7dbl_2", narrow, high),
            ("branch7x7dbl_3", narrow, wide),
            ("branch7x7dbl_4", narrow, high),
            ("branch7x7dbl_5", 192, wide),
        ),
        (average_pool, ("branch_pool", 192, 1)),
    )


def _block_7(pool: Pool) -> tuple[Branch, ...]:
    return (
        (("branch1x1", 320, 1),),
        (("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
        (
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, ("branch_pool", 192, 1)),
    )


# In these two blocks the last layer of each branch and the pooling have stride 2 and no padding.
_HALVING_6A: tuple[Branch, ...] = (
    (("branch3x3", 384, 3),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
    (halving_pool,),
)
_HALVING_7A: tuple[Branch, ...] = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    ),
    (halving_pool,),
)

# name, input channels, branches, whether the block halves the resolution
BLOCKS: tuple[tuple[str, int, tuple[Branch, ...], bool], ...] = (
    ("Mixed_5b", 192, _block_5(32), False),
    ("Mixed_5c", 256, _block_5(64), False),
    ("Mixed_5d", 288, _block_5(64), False),
    ("Mixed_6a", 288, _HALVING_6A, True),
    ("Mixed_6b", 768, _block_6(128), False),
    ("Mixed_6c", 768, _block_6(160), False),
    ("Mixed_6d", 768, _block_6(160), False),
    ("Mixed_6e", 768, _block_6(192), False),
    ("Mixed_7a", 768, _HALVING_7A, True),
    ("Mixed_7b", 1280, _block_7(average_pool), False),
    ("Mixed_7c", 2048, _block_7(maximum_pool), False),
)
_MAPS = ("Mixed_5d", "Mixed_6e", "Mixed_7c")


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation and ReLU; pads to keep the size unless `padded` is False."""

    def __init__(
        self, inside: int, outside: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inside, outside, sides, stride=stride, padding=padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(values)))


class Mixed(nn.Module):
    """An Inception block: parallel branches on the same input, concatenated along the channels.

    Args:
        inside: input channels.
        paths: the branches, each a sequence of layers, forks and pools.
        halving: whether the last layer of each branch has stride 2 and no padding.
    """

    def __init__(self, inside: int, paths: tuple[Branch, ...], *, halving: bool = False) -> None:
        super().__init__()
        self.paths = paths
        for path in paths:
            channels = inside
            for number, step in enumerate(path):
                if callable(step):
                    continue
                last = halving and number == len(path) - 1
                layers = _layers(step)
                for name, outside, kernel in layers:
                    layer = Convolution(channels, outside, kernel, stride=2 if last else 1, padded=not last)
                    self.add_module(name, layer)
                channels = sum(outside for _, outside, _ in layers)

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of branch channels, H, W), or half the resolution."""
        found = []
        for path in self.paths:
            branch = values
            for step in path:
                if callable(step):
                    branch = step(branch)
                else:
                    branch = torch.cat([self.get_submodule(name)(branch) for name, _, _ in _layers(step)], dim=1)
            found.append(branch)
        return torch.cat(found, dim=1)


def _layers(step: Layer | Fork) -> Fork:
    return (step,) if isinstance(step[0], str) else step


class FidInception(nn.Module):
    """The FID Inception network, from images to the 2048 features of pool3; described at the top of this module."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        for name, inside, paths, halving in BLOCKS:
            self.add_module(name, Mixed(inside, paths, halving=halving))
        self.fc = nn.Linear(DIMENSION, CLASSES)

    def stages(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and output of each stage in order: the two pools of the stem, `pool1` and `pool2`, then the blocks."""
        values = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        values = halving_pool(values)
        yield "pool1", values
        values = halving_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(values)))
        yield "pool2", values
        for name, _, _, _ in BLOCKS:
            values = self.get_submodule(name)(values)
            yield name, values

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 299, 299) in (x - 128) / 128 -> (B, 2048)."""
        *_, (_, values) = self.stages(images)
        return values.mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps from fine to coarse: 73x73x64, 35x35x192, 35x35x288, 17x17x768, 8x8x2048, as (B, C, H, W)."""
        return [values for name, values in self.stages(images) if name in ("pool1", "pool2", *_MAPS)]

    def logits(self, features: Tensor) -> Tensor:
        """(B, 2048) -> (B, 1008), without the bias, as the Inception score is defined."""
        return F.linear(features, self.fc.weight)


def find_weights(
    weights: Path | None, *, cache: Path, download: bool = False, url: str = URL, sha256: str = SHA256
) -> Path:
    """Path of the weights file: the given one, or that in the cache, downloaded if necessary and allowed.

    Args:
        weights: a file; None: <cache>/weights/<FILE>.
        cache: the cache folder.
        download: whether a missing file may be downloaded from `url`.
        url, sha256: address and checksum of the file.

    Raises:
        ConfigError: the file is missing and `download` is False.
        DataError: the download failed.
        CheckpointError: the downloaded file has another checksum.
        OutputError: the cache cannot be written.
    """
    place = cache / "weights" / FILE if weights is None else weights
    with input_errors(place, CheckpointError):
        if place.exists():
            return place
    if weights is not None:
        raise ConfigError(f"there is no {weights}; give the path of {FILE} from {url}")
    if not download:
        raise ConfigError(
            f"the extractor inception needs its weights: put {FILE} from {url} at {place}, "
            f"name another place with {arg('weights')}, or allow the download of 96 MB with {arg('download')}"
        )
    _fetch(url, place, sha256)
    return place


def read_weights(path: Path, *, sha256: str = SHA256) -> dict[str, Tensor]:
    """Read the tensors of the weights file by name, after verifying its checksum; only tensors are ever unpickled.

    Raises:
        CheckpointError: the checksum differs, or the file cannot be read.
    """
    with input_errors(path, CheckpointError):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"{path} has SHA-256 {found[:16]}, expected {sha256[:16]}; it was cut short, changed, or is another "
                f"file: take {FILE} from {URL}"
            )
        try:
            tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError) as error:
            raise CheckpointError(f"{path} cannot be read ({str(error)[:160]!r})") from None
    return tensors


def build(tensors: Mapping[str, Tensor]) -> FidInception:
    """The network with the given weights, in eval mode.

    Raises:
        CheckpointError: tensors are missing, unexpected or of the wrong shape.
    """
    with torch.device("meta"):  # no random initialisation: `assign` puts the loaded tensors in place
        network = FidInception()
    try:
        network.load_state_dict(dict(tensors), assign=True)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"the weights do not fit the extractor inception ({reason})") from None
    return network.eval().requires_grad_(False)


def _fetch(url: str, target: Path, sha256: str) -> None:
    """Download a file; the target appears only once it is complete and its checksum is verified."""

    def fill(file: IO[bytes]) -> None:
        digest = hashlib.sha256()
        for chunk in _download(url, target):
            digest.update(chunk)
            file.write(chunk)
            if file.tell() > _DOWNLOAD_LIMIT:
                raise DataError(f"{url} sends more than {_DOWNLOAD_LIMIT:,} bytes; put {FILE} at {target} yourself")
        if digest.hexdigest() != sha256:
            raise CheckpointError(
                f"{url} came with SHA-256 {digest.hexdigest()[:16]}, expected {sha256[:16]}; "
                f"try again, or put {FILE} at {target}"
            )

    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, fill)


def _download(url: str, target: Path) -> Iterator[bytes]:
    """The bytes at a URL, in chunks. Raises DataError if the download fails."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            length = response.headers.get("Content-Length", "")
            received = 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
            if length.isdigit() and received != int(length):
                raise DataError(f"{url} broke off at {received:,} of {int(length):,} bytes; try again")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"cannot download {url} ({error}); get {FILE} elsewhere and put it at {target}") from error
