"""Building blocks of the networks. Layout: (B, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.runtime.distributed import all_reduce_sum_with_gradient, world
from smalti.runtime.rng import Draws


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the whole batch, however many ranks share it (Ioffe and Szegedy, arXiv:1502.03167).

    torch's own synchronised version exists for CUDA alone; this one works with any backend.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1] * world()
        mean = all_reduce_sum_with_gradient(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce_sum_with_gradient(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        values = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            values = values * self.weight[:, None, None] + self.bias[:, None, None]
        return values.to(x.dtype)


class Dropout(nn.Module):
    """Dropout with noise that is an argument, not from the global generator: zeros a share, scales up the rest."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, draws: Draws | None) -> Tensor:
        if not self.training or draws is None or self.probability == 0:
            return x
        keep = 1.0 - self.probability
        batch, channels, height, width = x.shape
        mask = draws.keep(keep, batch, height, width, channels).permute(0, 3, 1, 2)  # channels last, like x
        return x * mask.to(x.dtype).mul_(1 / keep)


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))): the block of van den Oord et al. 2017, arXiv:1711.00937, section 4.1."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class PlainBlock(nn.Module):
    """conv3x3 -> BN -> LeakyReLU; the convolution has no bias because BN would take it out again."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm = BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by two; with a convolution after it there are no checkerboard artifacts."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ConvolutionPair(nn.Module):
    """x + conv3x3(relu(conv3x3(relu(x)))), the identity at first (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        _zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class NormalizedBlock(nn.Module):
    """x + conv3x3(silu(norm(conv3x3(silu(norm(x)))))), the identity at first (Esser et al. 2021, arXiv:2012.09841)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = group_norm(width), nn.Conv2d(width, width, 3, padding=1)
        _zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


def group_norm(width: int) -> nn.GroupNorm:
    """Groups of 16 channels where the width allows, each normalised over an image (Wu and He, arXiv:1803.08494)."""
    groups = next(groups for groups in range(max(1, width // 16), 0, -1) if width % groups == 0)
    return nn.GroupNorm(groups, width)


def _zero(convolution: nn.Conv2d) -> None:
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
