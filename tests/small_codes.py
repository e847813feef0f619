"""Codes of a few pictures, and the tokenizer that wrote them, untrained but with codes that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from networks import strong
from small_runs import pixels

from smalti.checkpoint import file as checkpoint
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.quantizer import ResidualConfig, VectorConfig
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.codes import TOKENIZER, CodesAbout, CodeSet, CodeWriter, open_codes
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.autoencoder import Autoencoder

CODES, SIDE = 8, 16
GRID = (SIDE // 4, SIDE // 4)


def write_tokenizer(path: Path, *, planes: int = 1, seed: int = 0) -> checkpoint.Card:
    """A VQ-VAE of 16x16 pictures: 4x4 places, `planes` codes each."""
    layer = VectorConfig(codes=CODES, dimension=4)
    config = override(preset("vqvae"), ["model.autoencoder.width=8", "model.autoencoder.residual_width=4"])
    model = config.model
    assert isinstance(model, VQVAEConfig)
    quantizer = layer if planes == 1 else ResidualConfig(layer=layer, depth=planes)
    config = RunConfig("vqvae", VQVAEConfig(model.autoencoder, quantizer, optimizer=model.optimizer))
    assert isinstance(config.model, VQVAEConfig)
    torch.manual_seed(seed)
    network = strong(Autoencoder(config.model, 3))
    for name, buffer in network.named_buffers():
        if name.endswith("codebook"):
            buffer.copy_(torch.randn_like(buffer))
    path.parent.mkdir(parents=True, exist_ok=True)
    return checkpoint.write(path, network, checkpoint.Card("vqvae", config, ImageSpec(3, SIDE, SIDE), (), 0, {}))


def about_codes(
    count: int, digest: str, *, planes: int = 1, split: str | None = None, captions: bool = True
) -> CodesAbout:
    return CodesAbout(
        (CODES,) * planes, GRID, (3, SIDE, SIDE), digest, "discs", "fingerprint of the images", split,
        ("train", "test") if split else (), ("left", "right"), [f"{number}.png" for number in range(count)],
        [("red " if number % 2 else "blue ") + "disc" for number in range(count)] if captions else None,
    )  # fmt: skip


def some_codes(count: int, *, planes: int = 1, seed: int = 0) -> np.ndarray:
    """(count, planes, 4, 4) with much to learn: all of a plane are the same."""
    found = np.random.default_rng(seed).integers(0, CODES, (count, planes, 1, 1))
    return np.broadcast_to(found, (count, planes, *GRID)).copy()


def small_codes(folder: Path, *, count: int = 40, planes: int = 1, captions: bool = True, seed: int = 0) -> CodeSet:
    """A code set with a train and a test split; the first one."""
    card = write_tokenizer(folder / "codes" / TOKENIZER, planes=planes)
    for split, rows in (("test", 8), ("train", count)):
        about = about_codes(rows, card.digest, planes=planes, split=split, captions=captions)
        writer = CodeWriter(folder / "codes", about, np.arange(rows) % 2)
        writer.append(some_codes(rows, planes=planes, seed=seed + (split == "test")))
        writer.finish()
        writer.close()
    return open_codes(folder / "codes")


def small_pictures(count: int = 8) -> np.ndarray:
    return pixels(count, side=SIDE)
