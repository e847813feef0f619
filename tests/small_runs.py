"""Trainings that take a moment: tiny networks on a few 16x16 pictures with something to learn in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.run import RunConfig
from smalti.data import PackedImages, PairedImages, load, load_pairs
from smalti.data.codes import CodeSet

TILES = (
    "model.autoencoder.stride=8",
    "model.autoencoder.width=8",
    "model.autoencoder.encoder_blocks=1",
    "model.autoencoder.decoder_blocks=1",
    "model.quantizer.groups=4",
    "model.quantizer.layer.codes=8",
    "model.quantizer.layer.dimension=2",
)
R3GAN = (
    "model.network.width=16",
    "model.network.blocks=1",
    "model.network.patch=1",
    "model.network.generator_width=48",
    "model.network.generator_taper=0.85",
    "model.latent=8",
)
CODEC = (
    "model.coefficients=32",
    "model.width=8",
    "model.blocks=1",
    "model.context.groups=4",
    "model.context.width=16",
    "model.optimizer.warm_up=0",
)
RESTORE = ("data.size=[16, 16]", "data.crop=16", "model.network.width=8", "model.optimizer.warm_up=0")
UNET = (*RESTORE, "model.network.levels=2", "model.network.middle=1")
FLAT = (*RESTORE, "model.network.blocks=1")
SHARP = ("model.perceptual.start=8", "model.adversary.start=16", "model.adversary.width=4", "model.adversary.ramp=0")
STYLE = (
    "data.size=[16, 16]",
    "model.network.width=8",
    "model.network.levels=3",
    "model.network.middle=1",
    "model.adversary.width=4",
    "model.adversary.ramp=0",
    "model.optimizer.warm_up=0",
)
SMALL = {
    "vqvae": (
        "model.autoencoder.width=8",
        "model.autoencoder.residual_width=4",
        "model.quantizer.codes=16",
        "model.quantizer.dimension=4",
    ),
    "vqvae-64": ("model.autoencoder.width=8", "model.quantizer.codes=16", "model.quantizer.dimension=4"),
    "vqvae-best": TILES,
    "vqgan": (
        *TILES,
        "model.adversary.width=4",
        "model.adversary.start=16",
        "model.adversary.ramp=32",
        "model.perceptual.start=8",
        "model.perceptual.network=smalti-vit",
    ),
    "fsq": ("model.autoencoder.width=8", "model.autoencoder.residual_width=4"),
    "rvq": (
        "model.autoencoder.width=8",
        "model.autoencoder.residual_width=4",
        "model.quantizer.layer.codes=16",
        "model.quantizer.layer.dimension=4",
    ),
    "tokenizer-256": (
        "model.autoencoder.width=16",
        "model.autoencoder.patch=2",
        "model.autoencoder.stride=4",
        "model.quantizer.codes=16",
        "model.quantizer.dimension=16",
        "model.adversary.width=4",
        "model.adversary.start=16",
        "model.adversary.ramp=0",
        "data.size=null",
    ),
    "tokenizer-32": (
        "model.autoencoder.width=16",
        "model.autoencoder.blocks=1",
        "model.quantizer.codes=16",
        "model.quantizer.dimension=4",
        "model.adversary.width=4",
        "model.adversary.start=16",
        "model.adversary.ramp=32",
        "model.perceptual.start=8",
        "model.perceptual.network=smalti-vit",
        "model.freeze_encoder_at=24",
    ),
    "smalti-vit": (
        "model.encoder.stem_width=4",
        "model.encoder.width=8",
        "model.encoder.heads=2",
        "model.projection=8",
    ),
    **dict.fromkeys(("gan-nano", "gan-small", "gan-base", "r3gan-cifar10"), R3GAN),
    "codec-tiny": ("model.tile=8", *CODEC),
    "codec-photo": ("model.tile=4", *CODEC, "model.context.shared=8", "data.size=[16, 16]", "data.crop=16"),
    **dict.fromkeys(("denoise", "jpeg-repair", "deblur"), UNET),
    **dict.fromkeys(("colourise", "restore-blind", "fill"), (*UNET, *SHARP)),
    **dict.fromkeys(("super-x2", "super-x4"), FLAT),
    "restyle-paired": (*STYLE, "model.objective.perceptual.start=8", "model.adversary.start=16"),
    "restyle-unpaired": (*STYLE, "model.objective.patches=8", "model.objective.embedding=8"),
    "restore-codes": (
        "data.size=[16, 16]",
        "data.crop=16",
        "model.width=16",
        "model.blocks=1",
        "model.fidelity_start=32",
        "model.perceptual.network=smalti-vit",
        "model.optimizer.warm_up=0",
    ),
    "sngan": (
        "model.network.generator_width=8",
        "model.network.discriminator_width=4",
        "model.latent=8",
        "model.generator_every=2",
    ),
    "dcgan": ("model.network.generator_width=8", "model.network.discriminator_width=4", "model.latent=8"),
}
for _name in ("prior-nano", "prior-small", "maskgit-small", "text-emoji"):
    SMALL[_name] = (
        "model.width=16",
        "model.heads=2",
        "model.depth=2",
        "model.embedding=4",
        "model.head_width=8",
        "model.head_depth=1",
        "model.text_bytes=12",
        "model.text_depth=1",
        "model.optimizer.warm_up=0",
    )
SMALL["context"] = ("model.embedding=8", "model.width=32", "model.optimizer.warm_up=0")
LOOP = ("train.batch=8", "train.log_every=16", "train.save_every=32", "train.preview_every=64", "train.images=64")


def pixels(count: int = 40, *, side: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(count, side, side, channels) uint8: a disc of one colour on another, somewhere."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    centres = chance.uniform(side / 4, 3 * side / 4, (count, 2))
    disc = np.hypot(rows - centres[:, :1, None], columns - centres[:, 1:, None]) < side / 4
    front, back = chance.integers(0, 256, (2, count, 1, 1, channels))
    return np.where(disc[..., None], front, back).astype(np.uint8)


def write_source(path: Path, *, count: int = 40, side: int = 16, channels: int = 3, labels: bool = True) -> Path:
    """An .npz that `smalti.data.load` opens, with two classes."""
    arrays = {"images": pixels(count, side=side, channels=channels)}
    if labels:
        arrays["labels"] = np.arange(count) % 2
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def small_data(folder: Path, **options: Any) -> PackedImages:
    return load(write_source(folder / "discs.npz", **options), cache=folder / "cache")


def small_pairs(folder: Path, *, count: int = 40, side: int = 16, scale: int = 1, matched: bool = True) -> PairedImages:
    """Negatives, smaller by the scale, and the pictures that should become of them."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels(count, side=side)
    np.savez(folder / "negatives.npz", images=255 - images[:, ::scale, ::scale])
    np.savez(folder / "positives.npz", images=images)
    sources = (folder / "negatives.npz", folder / "positives.npz")
    return load_pairs(*sources, scale=scale, matched=matched, cache=folder / "cache")


def data_for(name: str, folder: Path) -> PackedImages | PairedImages | CodeSet:
    """What a preset is trained on."""
    from small_codes import small_codes

    kind = preset(name).kind
    if kind.data == "pairs":
        return small_pairs(folder, matched=preset(name).model.matched)  # type: ignore[attr-defined]
    return small_codes(folder) if kind.data == "codes" else small_data(folder)


def tokenizer_for(name: str, folder: Path) -> Path | None:
    """What a preset is given as `of`: a VQ-VAE of images with codes at every 4 pixels."""
    from small_codes import write_tokenizer

    if not preset(name).kind.takes_tokenizer:
        return None
    path = folder / "tokenizer.safetensors"
    if not path.exists():
        write_tokenizer(path)
    return path


def small_config(name: str, *assignments: str) -> RunConfig:
    return override(preset(name), [*SMALL[name], *LOOP, *assignments])


def settings(name: str, *assignments: str) -> list[str]:
    """The same as `--set` words of a command line."""
    return [word for text in (*SMALL[name], *LOOP, *assignments) for word in ("--set", text)]
