"""A small residual classifier that is fast to train, for the classification accuracy score.

    stem     conv with stride S, BN, ReLU           S = 1 up to 63 pixels, above it the power of two that leaves 32..63
    stage i  conv 3x3 stride 2, BN, ReLU, and x + ReLU(BN(conv(ReLU(BN(conv(x))))))    doubles the width
    head     global max pooling, linear

Stages are added until the grid is 4..8 positions wide, three at most. Training: cross-entropy with label smoothing 0.1,
SGD with Nesterov momentum 0.9, weight decay 5e-4, batch size 128; the learning rate rises linearly over the first fifth
of the training and then falls linearly to 0. Augmentation: random horizontal flips, and random shifts by up to an
eighth of the side.

After He et al. 2016, arXiv:1512.03385, and the narrow, fast networks of Page 2018 ("How to train your ResNet",
DAWNBench). Pixels: (N, H, W, C) uint8 outside, (B, C, H, W) float32 in [-1, 1] inside.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.data.augmentation import gathered, mirrored
from smalti.data.order import permutation
from smalti.errors import ConfigError, DataError
from smalti.runtime.device import fast_bfloat16
from smalti.runtime.pixels import to_tensor
from smalti.runtime.rng import Draws, mix

BATCH = 128
WIDTH = 32
PEAK_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SMOOTHING = 0.1
_WARM_UP = 0.2
_SMALLEST_SIDE = 4

ReportProgress = Callable[[int, int | None], None]


class PixelSource(Protocol):
    """Images that are read in batches, such as `smalti.data.PackedImages`."""

    def __len__(self) -> int: ...
    def pixels(self, indices: np.ndarray) -> np.ndarray: ...


Images = PixelSource | np.ndarray


class ClassifierNetwork(nn.Module):
    """The network: (B, C, H, W) in [-1, 1] -> (B, classes) logits."""

    def __init__(self, image: tuple[int, int, int], classes: int, *, width: int = WIDTH) -> None:
        """
        Args:
            image: (channels, height, width).
            classes: number of classes.
            width: channels after the stem.
        """
        super().__init__()
        channels, *sides = image
        stride = 1 << max(0, (min(sides) // 32).bit_length() - 1)
        grid = min(sides) // stride
        size = 3 if stride == 1 else 2 * stride
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, size, stride, padding=(size - stride + 1) // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        while len(stages) < 3 and grid >= 8:
            stages.append(_Stage(width, 2 * width))
            width, grid = 2 * width, grid // 2
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(images)).amax((2, 3)))
        return logits


class _Stage(nn.Module):
    """A convolution of stride 2, then a residual block of two convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.down = _convolution(channels_in, channels_out, stride=2)
        self.block = nn.Sequential(_convolution(channels_out, channels_out), _convolution(channels_out, channels_out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        residual: Tensor = self.block(x)
        return x + residual


def _convolution(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Classifier:
    """A trained network with its class names."""

    def __init__(self, network: nn.Module, image: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        """
        Args:
            network: maps (B, C, H, W) in [-1, 1] to (B, classes) logits.
            image: (channels, height, width) of the training images.
            classes: class names.
        """
        self.network, self.image, self.classes = network, image, classes

    def probabilities(self, images: Images, *, batch: int = 256) -> Tensor:
        """Class probabilities: (N, classes) float32 on the CPU; each row sums to 1.

        Raises:
            DataError: the size, channels or type of the images differ from those in training.
        """
        source = as_source(images)
        device = next(self.network.parameters()).device
        parts = [torch.empty(0, len(self.classes))]
        self.network.eval()
        for start in range(0, len(source), batch):
            pixels = source.pixels(np.arange(start, min(start + batch, len(source))))
            found = (pixels.shape[3], *pixels.shape[1:3])
            if found != self.image or pixels.dtype != np.uint8:
                raise DataError(
                    f"the classifier was trained on uint8 images of (channels, height, width) {self.image}, "
                    f"found {pixels.dtype} of {found}"
                )
            with torch.no_grad(), _autocast(device):
                logits = self.network(to_tensor(pixels, device))
            parts.append(logits.float().softmax(1).cpu())
        return torch.cat(parts)

    def predict(self, images: Images, *, batch: int = 256) -> np.ndarray:
        """The most probable label of each image, (N,) int64."""
        return self.probabilities(images, batch=batch).argmax(1).numpy()


def train_classifier(
    images: Images,
    labels: Any,
    classes: Sequence[str],
    *,
    images_seen: int = 200_000,
    flip: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: ReportProgress | None = None,
) -> Classifier:
    """Train a classifier from scratch; on the same machine, equal arguments give an equal classifier.

    Args:
        images: (N, H, W, C) uint8, or packed images, which are read in batches; C is 1, 3 or 4, H and W at least 4.
        labels: (N,) integers in 0..len(classes)-1; a class may have no images.
        classes: class names, at least two.
        images_seen: length of the training in images.
        flip: random horizontal flips; turn off for text, or if left and right differ in meaning.
        seed: seed of initial weights, order and augmentation.
        device: device to train on.
        progress: called with (images seen, total) after each batch.

    Raises:
        ConfigError: fewer than two classes, or images_seen below 1.
        DataError: the images and labels do not match.
    """
    if len(classes) < 2 or images_seen < 1:
        raise ConfigError(
            f"a classifier needs two classes and one image to see, found {len(classes)} and {images_seen}"
        )
    source = as_source(images)
    truth = checked_labels(labels, len(classes))
    if len(source) == 0 or len(source) != len(truth):
        raise DataError(f"there are {len(source)} training images and {len(truth)} labels; each image needs one")
    shape = _image_shape(source)
    device = torch.device(device)
    with _initial_weights(seed):
        network = ClassifierNetwork(shape, len(classes))
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    _train(network, source, truth, images_seen, flip, seed, progress)
    return Classifier(network.eval(), shape, tuple(str(name) for name in classes))


def _train(
    network: nn.Module,
    source: PixelSource,
    truth: np.ndarray,
    images_seen: int,
    flip: bool,
    seed: int,
    progress: ReportProgress | None,
) -> None:
    device = next(network.parameters()).device
    optimizer = torch.optim.SGD(
        network.parameters(), lr=PEAK_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY, fused=True
    )
    batch = min(BATCH, len(source))
    for seen in range(0, images_seen, batch):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * _rate(seen / images_seen)
        indices = _indices(seed, seen, batch, len(source))
        pixels = augmented(source.pixels(indices), Draws(mix(seed, 2), seen), flip=flip)
        targets = torch.from_numpy(truth[indices]).to(device)
        with _autocast(device):
            logits = network(to_tensor(pixels, device))
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if progress is not None:
            progress(min(seen + batch, images_seen), images_seen)


def augmented(pixels: np.ndarray, draws: Draws, *, flip: bool) -> np.ndarray:
    """Images shifted by up to an eighth of the side with reflected borders, and randomly flipped: (B, H, W, C)."""
    count, height, width = pixels.shape[:3]
    chance = draws.uniform(count, 3).numpy()
    rows = mirrored(height, _offsets(height, chance[:, 0]))
    columns = mirrored(width, _offsets(width, chance[:, 1]))
    if flip:
        columns = np.where(chance[:, 2:] < 0.5, columns[:, ::-1], columns)
    return gathered(pixels, rows, columns)


def _offsets(side: int, chance: np.ndarray) -> np.ndarray:
    """(B,) in [0, 1) -> (B,) shifts in pixels, up to an eighth of the side."""
    reach = side // 8
    offsets: np.ndarray = (chance * (2 * reach + 1)).astype(np.int64) - reach
    return offsets


def as_source(images: Images) -> PixelSource:
    """Images as a `PixelSource`: arrays are wrapped, anything with a method `pixels` is returned as it is.

    Raises:
        DataError: the array is not (N, H, W, C) uint8 with 1, 3 or 4 channels.
    """
    if not isinstance(images, np.ndarray) and hasattr(images, "pixels"):
        return images
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"images are {array.dtype} of shape {array.shape}; expected uint8, (images, height, width, 1, 3 or 4)"
        )
    return _ArraySource(array)


class _ArraySource:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        pixels: np.ndarray = self.array[indices]
        return pixels


def checked_labels(labels: Any, classes: int) -> np.ndarray:
    """Validated labels, (N,) int64 in 0..classes-1.

    Raises:
        DataError: labels are None, have the wrong type or shape, or are out of range.
    """
    if labels is None:
        raise DataError("these images have no labels; take a source with classes")
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise DataError(f"labels are {array.dtype} of shape {array.shape}; expected (N,) integers")
    if len(array) and (array.min() < 0 or array.max() >= classes):
        wrong = array[(array < 0) | (array >= classes)][0]
        raise DataError(f"label {wrong} belongs to none of the {classes} classes, 0..{classes - 1}")
    return array.astype(np.int64)


def _image_shape(source: PixelSource) -> tuple[int, int, int]:
    height, width, channels = source.pixels(np.arange(1)).shape[1:]
    if min(height, width) < _SMALLEST_SIDE:
        raise DataError(f"images are {height}x{width}, but a classifier needs sides of at least {_SMALLEST_SIDE}")
    return channels, height, width


def _indices(seed: int, images_seen: int, count: int, total: int) -> np.ndarray:
    """Indices of the images of a batch, each once per epoch: (count,) int64, where count is at most total."""
    epoch, start = divmod(images_seen, total)
    order = _order(seed, epoch, total)[start : start + count]
    if len(order) < count:
        order = np.concatenate([order, _order(seed, epoch + 1, total)[: count - len(order)]])
    return order


_order = functools.lru_cache(maxsize=2)(permutation)  # a permutation per batch would cost more than the batch itself


def _rate(progress: float) -> float:
    """Learning rate as a fraction of its peak, at a fraction of the training."""
    return progress / _WARM_UP if progress < _WARM_UP else (1 - progress) / (1 - _WARM_UP)


@contextlib.contextmanager
def _initial_weights(seed: int) -> Iterator[None]:
    """Initialise modules built inside from the seed only, and restore the state of the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, 1))
        yield


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if fast_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
