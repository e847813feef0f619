"""Feature maps inside of encoders and decoders, by resolution: to look at, and to change on the way.

A tap is the last place at one resolution, before the layer that changes the resolution; the last layer of a network,
which leaves the features, has none. The names of resolutions are pixels per position: 1, 2, 4, ... The reach of a part
is how many pixels beside a position it looks at, which tiles of a picture must overlap by; group normalisation and
attention look at everything, so networks that have them reach without bound.

    architecture      taps of the encoder     taps of the decoder     reach
    residual, plain   2, 4, ... stride        stride ... 4, 2 (1)     bounded
    modern            patch ... stride        stride ... patch        unbounded
    transform         patch                   patch                   bounded

Layout: (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.models.autoencoder.klt import TransformDecoder, TransformEncoder
from smalti.models.autoencoder.vqgan import ModernDecoder, ModernEncoder
from smalti.nn.blocks import Upsample


class Tap(NamedTuple):
    """A place between layers: after which layer, and the channels there."""

    layer: int
    channels: int


class _Step(NamedTuple):
    layer: int
    scale: float  # pixels per position after the layer
    channels: int
    reach: float  # of the layer alone, in pixels


def encoder_taps(encoder: nn.Module) -> dict[int, Tap]:
    """The taps of an encoder by resolution, the finest first."""
    layers, scale = _encoder_layers(encoder)
    return _taps(layers, scale)


def decoder_taps(decoder: nn.Module, stride: int) -> dict[int, Tap]:
    """The taps of a decoder by resolution, the coarsest first."""
    layers, scale = _decoder_layers(decoder, stride)
    return _taps(layers, scale)


def encode_with_features(encoder: nn.Module, images: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The latents of images whose sides are multiples of the stride, and the feature map at each tap."""
    if isinstance(encoder, TransformEncoder):
        features = encoder.features(images)
        return encoder.corrected(images, features), {encoder.patch: features}
    layers, scale = _encoder_layers(encoder)
    places = {tap.layer: where for where, tap in _taps(layers, scale).items()}
    x = F.pixel_unshuffle(images, encoder.patch) if isinstance(encoder, ModernEncoder) else images
    found = {}
    for number, layer in enumerate(layers):
        x = layer(x)
        if number in places:
            found[places[number]] = x
    return x, found


def decode_with(
    decoder: nn.Module, values: Tensor, stride: int, changes: Mapping[int, Callable[[Tensor], Tensor]]
) -> Tensor:
    """Images of (B, D, h, w) values, where feature maps at some taps are replaced by a function of themselves."""
    if isinstance(decoder, TransformDecoder):
        base, features = decoder.features(values)
        change = changes.get(decoder.patch)
        return decoder.corrected(base, features if change is None else change(features))
    layers, scale = _decoder_layers(decoder, stride)
    places = {tap.layer: where for where, tap in _taps(layers, scale).items()}
    x = values
    for number, layer in enumerate(layers):
        x = layer(x)
        if places.get(number) in changes:
            x = changes[places[number]](x)
    return F.pixel_shuffle(x, decoder.patch) if isinstance(decoder, ModernDecoder) else x


def encoder_reach(encoder: nn.Module) -> int | None:
    """Pixels beside its own that a code depends on, at most; None: all of the picture."""
    return _reach(encoder, *_encoder_layers(encoder))


def decoder_reach(decoder: nn.Module, stride: int) -> int | None:
    """Pixels beside its code's own that a pixel's code may be away from it, at most; None: without bound."""
    return _reach(decoder, *_decoder_layers(decoder, stride))


def _encoder_layers(encoder: nn.Module) -> tuple[list[nn.Module], int]:
    """The layers in order, and the resolution before the first of them."""
    if isinstance(encoder, TransformEncoder):
        return [encoder.stem, *encoder.blocks, encoder.narrow], encoder.patch
    if isinstance(encoder, ModernEncoder):
        return list(encoder.layers), encoder.patch
    assert isinstance(encoder, nn.Sequential)
    return list(encoder), 1


def _decoder_layers(decoder: nn.Module, stride: int) -> tuple[list[nn.Module], int]:
    if isinstance(decoder, TransformDecoder):
        return [decoder.stem, *decoder.blocks, decoder.correct], decoder.patch
    if isinstance(decoder, ModernDecoder):
        return list(decoder.layers), stride
    assert isinstance(decoder, nn.Sequential)
    return list(decoder), stride


def _taps(layers: list[nn.Module], scale: int) -> dict[int, Tap]:
    return {int(step.scale): Tap(step.layer, step.channels) for step in _steps(layers[:-1], scale)}


def _reach(network: nn.Module, layers: list[nn.Module], scale: int) -> int | None:
    if any(isinstance(part, nn.GroupNorm) for part in network.modules()):  # attention has one as well
        return None
    return round(sum(step.reach for step in _steps(layers, scale)))


def _steps(layers: list[nn.Module], first_scale: int) -> Iterator[_Step]:
    """What each layer does. The convolutions inside of a layer follow one another."""
    scale, channels = float(first_scale), 0
    for number, layer in enumerate(layers):
        reach = 0.0
        for part in layer.modules():
            if isinstance(part, Upsample):
                scale /= 2
            elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                before = int(part.padding[0])
                sides = (before, part.kernel_size[0] - 1 - before)
                if isinstance(part, nn.ConvTranspose2d):
                    reach += max(-(-side // part.stride[0]) for side in sides) * scale
                    scale /= part.stride[0]
                else:
                    reach += max(sides) * scale
                    scale *= part.stride[0]
                channels = part.out_channels
        yield _Step(number, scale, channels, reach)
