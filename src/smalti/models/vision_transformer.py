"""A small vision transformer: images to feature vectors.

    stem    3x3 to c, BN, ReLU | log2(stride) times: 3x3 stride 2 to twice the channels, BN, ReLU | 1x1 to the width
    tokens  + learned positions | depth times:  x + attention(LN x),  x + MLP(LN x), GELU | LN
    feature the mean of the tokens, and beside it a quarter of the mean of the stem's last map

A stem of convolutions instead of one patch projection makes a transformer learn from few images (Xiao et al. 2021,
arXiv:2106.14881); there is no class token (Zhai et al. 2022, arXiv:2106.04560). The stem's mean keeps texture and
colour, which the blocks discard: a linear probe, for which scale does not matter, gains accuracy from it. At full scale
it would dominate every distance, and it reacts to blur most of all; at a quarter the tokens dominate.
Layout: images (B, C, H, W) in [-1, 1]; tokens (B, T, W) in rows from the top.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.contrastive import ContrastiveConfig, VisionTransformerConfig
from smalti.data.spec import ImageSpec
from smalti.nn.attention import attention
from smalti.nn.blocks import BatchNorm2d

STEM_SIZE = 0.25


class VisionTransformer(nn.Module):
    """Images of one size to features.

    Args:
        image: (channels, height, width) of what it sees; sides that are no multiple of the stride are padded.
    """

    def __init__(self, config: VisionTransformerConfig, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.image = image
        channels, height, width = image
        wide = config.stem_width
        layers: list[nn.Module] = _convolution(channels, wide)
        for _ in range(int(math.log2(config.stride))):
            layers += _convolution(wide, 2 * wide, stride=2)
            wide *= 2
        self.stem = nn.Sequential(*layers)
        self.dimension = config.width + wide
        self.project = nn.Conv2d(wide, config.width, 1)
        self.grid = (-(-height // config.stride), -(-width // config.stride))
        self.positions = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], config.width))
        self.blocks = nn.ModuleList([TransformerBlock(config.width, config.heads) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        stem = self.stem(images)
        tokens = self.norm(self._tokens(stem)[-1])
        return torch.cat([tokens.mean(dim=1), STEM_SIZE * stem.mean(dim=(2, 3))], dim=1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps from fine to coarse, each (B, C_l, H_l, W_l): the stem at each resolution, the last tokens."""
        found = []
        for number in range(0, len(self.stem), 3):
            images = self.stem[number : number + 3](images)
            found.append(images)
        tokens = self._tokens(images)
        found += [
            self.norm(step).transpose(1, 2).unflatten(2, self.grid) for step in (tokens[len(tokens) // 2], tokens[-1])
        ]
        return found

    def _tokens(self, stem: Tensor) -> list[Tensor]:
        """The tokens after each block, (B, T, W)."""
        tokens = self.project(stem).flatten(2).transpose(1, 2) + self.positions
        after = []
        for block in self.blocks:
            tokens = block(tokens)
            after.append(tokens)
        return after


class TransformerBlock(nn.Module):
    """x + attention(LN x), then x + MLP(LN x), normalised first (Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.attend(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.merge(mixed)
        return tokens + self.narrow(F.gelu(self.widen(self.norm2(tokens))))


def _convolution(channels_in: int, channels_out: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return [convolution, BatchNorm2d(channels_out), nn.ReLU()]


def build_encoder(
    config: ContrastiveConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None
) -> VisionTransformer:
    """The network of the kind `contrastive`, without its weights: the encoder."""
    return VisionTransformer(config.encoder, spec.shape)
