"""Small transform codecs for 16x16 pictures: with weights that are the same on every machine, and trained ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_runs import pixels

from smalti.checkpoint import file as checkpoint
from smalti.codec.context import IntegerContext
from smalti.codec.image_codec import CodecEngine
from smalti.codec.image_file import Model
from smalti.config.codec import CodecConfig, ContextConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.data.spec import ImageSpec
from smalti.models.codec.codec import ImageCodec
from smalti.models.codec.context import ContextNet
from smalti.recipes import Images, TrainingContext, build_recipe
from smalti.recipes.codec import CodecRecipe
from smalti.runtime.pixels import premultiplied, to_tensor

SIDE, TILE, QUALITY = 16, 8, 40
DIGEST = bytes(range(200, 232))


def codec_config(*, neighbours: bool = False, coefficients: int = 48, groups: int = 5, **settings: Any) -> CodecConfig:
    context = ContextConfig(groups=groups, width=16, neighbours=neighbours, shared=10)
    chosen: dict[str, Any] = {
        "tile": TILE, "coefficients": coefficients, "width": 8, "blocks": 1, "context": context, "rate_weight": 0.15,
        "rounds": 2, "optimizer": OptimizerConfig(learning_rate=3e-3),
    }  # fmt: skip
    return CodecConfig(**(chosen | settings))


def drawn_codec(*, channels: int = 3, seed: int = 0, **settings: Any) -> ImageCodec:
    """A codec whose weights are drawn with numpy: the same on every machine, bit by bit."""
    codec = ImageCodec(codec_config(**settings), channels)
    chance = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in codec.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            spread = round(256 * 1.8 * fan_in**-0.5)
            parameter.copy_(torch.from_numpy(chance.integers(-spread, spread + 1, parameter.shape) / 256.0))
        net, phases = codec.context, 2 if codec.context.neighbours else 1
        for number, part in enumerate(net.nets):  # the later, the smaller: many of the last coefficients are excluded
            start, end = net.bounds[number // phases : number // phases + 2]
            part.last_bias.weight[0, end - start : 2 * (end - start)] -= 7 * torch.arange(start, end) / net.bounds[-1]
    return codec.eval().requires_grad_(False)


def recipe_of(config: CodecConfig, *, channels: int = 3, batch: int = 8, half_life: int = 0) -> CodecRecipe:
    run = RunConfig("codec", config, train=LoopConfig(batch=batch, ema_half_life=half_life))
    recipe = build_recipe(run, TrainingContext(ImageSpec(channels, SIDE, SIDE)))
    assert isinstance(recipe, CodecRecipe)
    return recipe


def discs(count: int = 40, *, channels: int = 3, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """(count, side, side, channels) uint8; those of 4 channels are opaque, or have a transparent ground."""
    found = pixels(count, side=side, channels=min(channels, 3), seed=seed)
    if channels != 4:
        return found
    ground = (found == found[:, :1, :1]).all(axis=3) & (np.arange(count) % 4 > 0)[:, None, None]
    return np.concatenate([found, np.where(ground, 0, 255).astype(np.uint8)[..., None]], axis=3)


def batches(images: np.ndarray, size: int = 8) -> list[Images]:
    return [Images(premultiplied(to_tensor(images[at : at + size]))) for at in range(0, len(images), size)]


@functools.cache
def trained_codec(*, channels: int = 3, neighbours: bool = False, steps: int = 24) -> ImageCodec:
    """A codec that knows discs a little; do not change it."""
    recipe = recipe_of(codec_config(neighbours=neighbours), channels=channels)
    data = batches(discs(channels=channels))
    recipe.start(lambda: data)
    for step in range(steps):
        recipe.step(data[step % len(data)], 8 * step)
    return recipe.export().requires_grad_(False)


def engine_of(codec: ImageCodec) -> CodecEngine:
    return CodecEngine(codec, rate_weight=0.15)


def model_of(codec: ImageCodec, *, digest: bytes = DIGEST) -> Model:
    return Model(engine_of(codec), digest, (SIDE, SIDE, codec.basis.channels))


def integer_context(net: ContextNet) -> IntegerContext:
    tensors = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    return IntegerContext(tensors, net.bounds, neighbours=net.neighbours, shared=net.shared)


def write_codec(path: Path, codec: ImageCodec, *, half: bool = False, **settings: Any) -> Path:
    """A checkpoint file of a codec with these settings of `codec_config`."""
    config = RunConfig("codec", codec_config(**settings))
    card = checkpoint.Card("codec", config, ImageSpec(codec.basis.channels, SIDE, SIDE), (), images_seen=192, data={})
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, codec, card, half=half)
    return path


def some_codes(shape: tuple[int, ...], *, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    """(B, D, h, w) int32 as codes often are: the later, the more zeros; now and then a large one."""
    chance = np.random.default_rng(seed)
    scales = spread / (1 + np.arange(shape[1]) / 4)[:, None, None]
    codes = np.rint(chance.laplace(0, 1, shape) * scales)
    return np.where(chance.random(shape) < 0.002, 400, codes).astype(np.int32)
