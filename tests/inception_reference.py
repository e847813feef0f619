"""The FID-Inception graph once more, written from the published tables with plain functions, for comparison alone.

A row is a scope of TensorFlow's graph in the port's words: name, channels in, channels out, kernel, stride, padding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEM = """
Conv2d_1a_3x3 3 32 3x3 2 0x0
Conv2d_2a_3x3 32 32 3x3 1 0x0
Conv2d_2b_3x3 32 64 3x3 1 1x1
Conv2d_3b_1x1 64 80 1x1 1 0x0
Conv2d_4a_3x3 80 192 3x3 1 0x0
"""


def _five(block: str, inside: int, pool: int) -> str:
    return f"""
{block}.branch1x1 {inside} 64 1x1 1 0x0
{block}.branch5x5_1 {inside} 48 1x1 1 0x0
{block}.branch5x5_2 48 64 5x5 1 2x2
{block}.branch3x3dbl_1 {inside} 64 1x1 1 0x0
{block}.branch3x3dbl_2 64 96 3x3 1 1x1
{block}.branch3x3dbl_3 96 96 3x3 1 1x1
{block}.branch_pool {inside} {pool} 1x1 1 0x0
"""


def _six(block: str, mid: int) -> str:
    return f"""
{block}.branch1x1 768 192 1x1 1 0x0
{block}.branch7x7_1 768 {mid} 1x1 1 0x0
{block}.branch7x7_2 {mid} {mid} 1x7 1 0x3
{block}.branch7x7_3 {mid} 192 7x1 1 3x0
{block}.branch7x7dbl_1 768 {mid} 1x1 1 0x0
{block}.branch7x7dbl_2 {mid} {mid} 7x1 1 3x0
{block}.branch7x7dbl_3 {mid} {mid} 1x7 1 0x3
{block}.branch7x7dbl_4 {mid} {mid} 7x1 1 3x0
{block}.branch7x7dbl_5 {mid} 192 1x7 1 0x3
{block}.branch_pool 768 192 1x1 1 0x0
"""


def _seven(block: str, inside: int) -> str:
    return f"""
{block}.branch1x1 {inside} 320 1x1 1 0x0
{block}.branch3x3_1 {inside} 384 1x1 1 0x0
{block}.branch3x3_2a 384 384 1x3 1 0x1
{block}.branch3x3_2b 384 384 3x1 1 1x0
{block}.branch3x3dbl_1 {inside} 448 1x1 1 0x0
{block}.branch3x3dbl_2 448 384 3x3 1 1x1
{block}.branch3x3dbl_3a 384 384 1x3 1 0x1
{block}.branch3x3dbl_3b 384 384 3x1 1 1x0
{block}.branch_pool {inside} 192 1x1 1 0x0
"""


HALVING = """
Mixed_6a.branch3x3 288 384 3x3 2 0x0
Mixed_6a.branch3x3dbl_1 288 64 1x1 1 0x0
Mixed_6a.branch3x3dbl_2 64 96 3x3 1 1x1
Mixed_6a.branch3x3dbl_3 96 96 3x3 2 0x0
Mixed_7a.branch3x3_1 768 192 1x1 1 0x0
Mixed_7a.branch3x3_2 192 320 3x3 2 0x0
Mixed_7a.branch7x7x3_1 768 192 1x1 1 0x0
Mixed_7a.branch7x7x3_2 192 192 1x7 1 0x3
Mixed_7a.branch7x7x3_3 192 192 7x1 1 3x0
Mixed_7a.branch7x7x3_4 192 192 3x3 2 0x0
"""

BLOCKS = [_five("Mixed_5b", 192, 32), _five("Mixed_5c", 256, 64), _five("Mixed_5d", 288, 64)]
BLOCKS += [_six("Mixed_6b", 128), _six("Mixed_6c", 160), _six("Mixed_6d", 160), _six("Mixed_6e", 192)]
BLOCKS += [_seven("Mixed_7b", 1280), _seven("Mixed_7c", 2048)]
TABLE = "".join([STEM, HALVING, *BLOCKS])


def _pair(text: str) -> tuple[int, int]:
    high, wide = text.split("x")
    return int(high), int(wide)


LAYERS = {
    name: (int(inside), int(outside), _pair(kernel), int(stride), _pair(padding))
    for name, inside, outside, kernel, stride, padding in (row.split() for row in TABLE.split("\n") if row)
}


def random_weights(seed: int) -> dict[str, Tensor]:
    """Weights of a network whose activations neither vanish nor explode, in the port's names and types."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for name, (inside, outside, kernel, _, _) in LAYERS.items():
        fan = inside * kernel[0] * kernel[1]
        made[f"{name}.conv.weight"] = torch.randn(outside, inside, *kernel, generator=generator) * math.sqrt(2 / fan)
        made[f"{name}.bn.weight"] = 0.8 + 0.4 * torch.rand(outside, generator=generator)
        made[f"{name}.bn.bias"] = 0.2 * torch.randn(outside, generator=generator)
        made[f"{name}.bn.running_mean"] = 0.2 * torch.randn(outside, generator=generator)
        made[f"{name}.bn.running_var"] = 0.5 + torch.rand(outside, generator=generator)
        made[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    made["fc.weight"] = torch.randn(1008, 2048, generator=generator) / math.sqrt(2048)
    made["fc.bias"] = torch.randn(1008, generator=generator)
    return made


def run(weights: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """Every stage by name; `pool3` is the features, `logits` has no bias."""

    def unit(name: str, x: Tensor) -> Tensor:
        _, _, _, stride, padding = LAYERS[name]
        x = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, variance, gain, shift = (
            weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.relu((x - mean) / torch.sqrt(variance + 0.001) * gain + shift)

    def mean_pool(x: Tensor) -> Tensor:
        total = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1) * 9
        count = F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 1, 1)), 3, stride=1) * 9
        return total / count

    def largest(x: Tensor, *, stride: int, padding: int) -> Tensor:
        padded = F.pad(x, (padding,) * 4, value=-np.inf)
        return padded.unfold(2, 3, stride).unfold(3, 3, stride).amax(dim=(4, 5))

    stages: dict[str, Tensor] = {}
    x = unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", unit("Conv2d_1a_3x3", images)))
    x = stages["pool1"] = largest(x, stride=2, padding=0)
    x = stages["pool2"] = largest(unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x)), stride=2, padding=0)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        double = unit(f"{b}.branch3x3dbl_2", unit(f"{b}.branch3x3dbl_1", x))
        parts = [
            unit(f"{b}.branch1x1", x),
            unit(f"{b}.branch5x5_2", unit(f"{b}.branch5x5_1", x)),
            unit(f"{b}.branch3x3dbl_3", double),
            unit(f"{b}.branch_pool", mean_pool(x)),
        ]
        x = stages[b] = torch.cat(parts, 1)
    double = unit("Mixed_6a.branch3x3dbl_2", unit("Mixed_6a.branch3x3dbl_1", x))
    parts = [unit("Mixed_6a.branch3x3", x), unit("Mixed_6a.branch3x3dbl_3", double), largest(x, stride=2, padding=0)]
    x = stages["Mixed_6a"] = torch.cat(parts, 1)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven, double = x, x
        for n in "123":
            seven = unit(f"{b}.branch7x7_{n}", seven)
        for n in "12345":
            double = unit(f"{b}.branch7x7dbl_{n}", double)
        parts = [unit(f"{b}.branch1x1", x), seven, double, unit(f"{b}.branch_pool", mean_pool(x))]
        x = stages[b] = torch.cat(parts, 1)
    seven = x
    for n in "1234":
        seven = unit(f"Mixed_7a.branch7x7x3_{n}", seven)
    three = unit("Mixed_7a.branch3x3_2", unit("Mixed_7a.branch3x3_1", x))
    x = stages["Mixed_7a"] = torch.cat([three, seven, largest(x, stride=2, padding=0)], 1)
    for b in ("Mixed_7b", "Mixed_7c"):
        three = unit(f"{b}.branch3x3_1", x)
        double = unit(f"{b}.branch3x3dbl_2", unit(f"{b}.branch3x3dbl_1", x))
        pooled = mean_pool(x) if b == "Mixed_7b" else largest(x, stride=1, padding=1)
        parts = [
            unit(f"{b}.branch1x1", x),
            unit(f"{b}.branch3x3_2a", three),
            unit(f"{b}.branch3x3_2b", three),
            unit(f"{b}.branch3x3dbl_3a", double),
            unit(f"{b}.branch3x3dbl_3b", double),
            unit(f"{b}.branch_pool", pooled),
        ]
        x = stages[b] = torch.cat(parts, 1)
    stages["pool3"] = x.mean(dim=3).mean(dim=2)
    stages["logits"] = stages["pool3"] @ weights["fc.weight"].T
    return stages
