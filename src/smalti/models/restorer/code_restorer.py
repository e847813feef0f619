"""A restorer that predicts the codes of the clean image, and decodes them with the decoder of a trained VQ-VAE.

    z = E(y),  logits = C(z, E's last features)         E begins as the encoder of the VQ-VAE
    x^ = D(values of the most probable codes)           D: the decoder, not trained

What D draws is made of what it has learned, even where y is hardly recognisable: details are plausible, but not
necessarily those of y. At each resolution that E and D share, features of D may be changed by those of E:

    d <- d + w (a * d + b),   (a, b) = convolutions of (d, e)

The fidelity w from 0, codes alone, to 1, nearest to y, is chosen when the network is used. The convolutions give
(0, 0) at first. The planes of codes are predicted each for itself.
Source: Zhou et al. 2022, arXiv:2206.11253 (CodeFormer); there a transformer predicts from faces
of one size, here residual convolutions with a bounded reach do, for pictures of any size.
Layout: (B, C, H, W) in [-1, 1]; codes (B, P, h, w).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.degradation import parse_degradation
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.taps import (
    decode_with,
    decoder_reach,
    decoder_taps,
    encode_with_features,
    encoder_reach,
    encoder_taps,
)
from smalti.models.restorer.restorer import enlarged
from smalti.nn.blocks import ConvolutionPair

LARGEST_ALPHABET = 2**16  # codes of all planes together: a probability of each is computed at each place
CONTROL_REACH = 2  # positions: two 3x3 convolutions


class Prediction(NamedTuple):
    """What is predicted from a degraded image.

    Attributes:
        latents: (B, D, h, w), near the values of the codes.
        logits: of each plane, (B, K, h, w).
        features: of the encoder, by resolution.
    """

    latents: Tensor
    logits: tuple[Tensor, ...]
    features: dict[int, Tensor]

    @property
    def codes(self) -> Tensor:
        """The most probable codes, (B, P, h, w)."""
        return torch.stack([plane.argmax(dim=1) for plane in self.logits], dim=1)


class Control(nn.Module):
    """Scale and shift of a decoder's features by an encoder's: (d, e) -> a * d + b, zero at first."""

    def __init__(self, channels: int, encoder_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels + encoder_channels, channels, 3, padding=1)
        self.change = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(cast(Tensor, self.change.bias))

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        mixed = F.relu(self.mix(torch.cat([decoded, encoded], dim=1)))
        scale, shift = self.change(mixed).chunk(2, dim=1)
        return cast(Tensor, scale * decoded + shift)


class CodePredictor(nn.Module):
    """The trained part: encoder, predictor of codes, fidelity connections.

    Args:
        tokenizer: the VQ-VAE; its encoder is copied, and nothing of it is kept.
    """

    def __init__(self, config: CodeRestorerConfig, tokenizer: Autoencoder) -> None:
        super().__init__()
        self.sizes = tokenizer.quantizer.codebook_sizes
        if sum(self.sizes) > LARGEST_ALPHABET:
            raise ConfigError(
                f"the tokenizer has {sum(self.sizes):,} codes in all planes, of which each gets a probability at each "
                f"place, but at most {LARGEST_ALPHABET:,} can be predicted; give a tokenizer with fewer codes"
            )
        self.encoder = copy.deepcopy(tokenizer.encoder).requires_grad_(True)
        ours, theirs = encoder_taps(self.encoder), decoder_taps(tokenizer.decoder, tokenizer.stride)
        self.coarsest = tokenizer.stride if tokenizer.stride in ours else None
        inputs = tokenizer.quantizer.dimension + (ours[self.coarsest].channels if self.coarsest else 0)
        self.stem = nn.Conv2d(inputs, config.width, 3, padding=1)
        self.blocks = nn.Sequential(*[ConvolutionPair(config.width) for _ in range(config.blocks)])
        self.head = nn.Conv2d(config.width, sum(self.sizes), 1)
        self.controls = nn.ModuleDict(
            {str(where): Control(tap.channels, ours[where].channels) for where, tap in theirs.items() if where in ours}
        )

    def forward(self, images: Tensor) -> Prediction:
        """Predict from images (B, C, H, W) whose sides are multiples of the stride."""
        latents, features = encode_with_features(self.encoder, images)
        inputs = latents if self.coarsest is None else torch.cat([latents, features[self.coarsest]], dim=1)
        logits = self.head(F.relu(self.blocks(self.stem(inputs))))
        return Prediction(latents, logits.split(self.sizes, dim=1), features)


class CodeRestorer(nn.Module):
    """A predictor of codes and the VQ-VAE that decodes them, for images of any size.

    Attributes:
        predictor: the trained part.
        tokenizer: the VQ-VAE.
        channels: of the images.
        scale: size of the result in sizes of the input.
        holes: whether it takes a mask of what is missing: no.
        multiple: sides of its inputs are padded to multiples of this many pixels.
        reach: pixels of the input around a pixel that its result depends on, at most; None: all of them.
    """

    holes = False

    def __init__(self, config: CodeRestorerConfig, tokenizer: Autoencoder, channels: int) -> None:
        super().__init__()
        self.channels, self.scale = channels, parse_degradation(config.degradation).scale
        self.predictor = CodePredictor(config, tokenizer)
        self.tokenizer = tokenizer
        self.multiple = tokenizer.stride // math.gcd(tokenizer.stride, self.scale)
        self.reach = self._reach(config)

    def forward(self, images: Tensor, hole: Tensor | None = None, *, fidelity: float = 1.0) -> Tensor:
        """Restore images.

        Args:
            images: (B, C, H, W) in [-1, 1], of any size.
            hole: always None.
            fidelity: from 0 to 1.

        Returns:
            (B, C, scale H, scale W) float32, not clipped.
        """
        height, width = (self.scale * side for side in images.shape[2:])
        prediction = self.predict(images)
        return self.decode(prediction, fidelity)[:, :, :height, :width]

    def predict(self, images: Tensor) -> Prediction:
        """The prediction for images of any size."""
        large = enlarged(images, self.scale)
        down, right = (-side % self.tokenizer.stride for side in large.shape[2:])
        if down or right:
            large = F.pad(large, (0, right, 0, down), mode="replicate")
        return cast(Prediction, self.predictor(large.contiguous(memory_format=torch.channels_last)))

    def decode(self, prediction: Prediction, fidelity: float) -> Tensor:
        """Images (B, C, h * stride, w * stride) of predicted codes; gradients reach the fidelity connections alone."""
        values = self.tokenizer.quantizer.values_of(prediction.codes)

        changes: dict[int, Callable[[Tensor], Tensor]] = {}
        if fidelity:
            for where, control in self.predictor.controls.items():
                encoded = prediction.features[int(where)]
                changes[int(where)] = partial(_changed, cast(Control, control), encoded, fidelity)
        return decode_with(self.tokenizer.decoder, values, self.tokenizer.stride, changes).float()

    def _reach(self, config: CodeRestorerConfig) -> int | None:
        """In pixels of the input; a pixel belongs to a place of the grid on the way down and on the way up."""
        stride = self.tokenizer.stride
        encoder, decoder = encoder_reach(self.tokenizer.encoder), decoder_reach(self.tokenizer.decoder, stride)
        if encoder is None or decoder is None:
            return None
        grid = stride * (1 + 2 * config.blocks)
        controls = CONTROL_REACH * sum(int(where) for where in self.predictor.controls)
        total = encoder + grid + controls + decoder + 2 * (stride - 1)
        return -(-total // self.scale) + (2 if self.scale > 1 else 0)


def _changed(control: Control, encoded: Tensor, fidelity: float, decoded: Tensor) -> Tensor:
    return decoded + fidelity * cast(Tensor, control(decoded, encoded))


def build_code_restorer(
    config: CodeRestorerConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None
) -> CodeRestorer:
    """The network of the kind `restore-codes`, without its weights; it includes its tokenizer."""
    assert isinstance(tokenizer, Autoencoder)
    return CodeRestorer(config, tokenizer, spec.channels)
