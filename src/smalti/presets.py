"""Named trainings. One row a preset; the score stands beside it once it has been measured. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config import (
    ClassicConfig,
    ContrastiveConfig,
    GANConfig,
    LoopConfig,
    OptimizerConfig,
    ProductConfig,
    RunConfig,
    TransformConfig,
    VectorConfig,
    VisionTransformerConfig,
    VQVAEConfig,
)
from smalti.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Preset:
    """A training with a name, one line about it, and what was measured with it ("" until it was)."""

    config: RunConfig
    about: str
    measured: str = ""


_ADAM_GAN = OptimizerConfig(learning_rate=2e-4, beta1=0.5)

PRESETS: dict[str, Preset] = {
    "vqvae": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ClassicConfig("residual", width=128, residual_width=32, residual_blocks=2, stride=4),
                VectorConfig(codes=512, dimension=64, update="ema"),
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            train=LoopConfig(images=2_000_000, batch=64, average_half_life=20_000),
        ),
        "VQ-VAE with the paper's residual blocks, 512 codes, EMA codebook",
        "25.35 dB, perplexity 417, FD 109 (efficientnet-lite0, 128 px): CIFAR-10 (JPEG copy), test, 2.00M images",
    ),
    "vqvae-best": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                TransformConfig(stride=32, width=96, encoder_blocks=2, decoder_blocks=2),
                ProductConfig(layer=VectorConfig(codes=512, dimension=8, decay=0.998, commitment=1.0), groups=64),
                loss_weight=6.0,  # six pixel values for each number of the latents
                optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, schedule="cosine", warm_up=5_000),
            ),
            train=LoopConfig(images=2_000_000, batch=128, average_half_life=5_000),
        ),
        "the least distortion for its bits: a learned transform of 32x32 tiles, 64 codes of 9 bits each",
    ),
    "vqvae-64": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ClassicConfig("plain", width=128, stride=4),
                VectorConfig(codes=64, dimension=64, update="gradient"),
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            train=LoopConfig(images=2_000_000, batch=64, average_half_life=20_000),
        ),
        "VQ-VAE of plain 3x3 convolutions with BN and LeakyReLU, 64 codes learned by gradient",
    ),
    "dcgan": Preset(
        RunConfig(
            recipe="gan",
            model=GANConfig(latent=100, generator_optimizer=_ADAM_GAN, discriminator_optimizer=_ADAM_GAN),
            train=LoopConfig(images=2_000_000, batch=64, average_half_life=20_000),
        ),
        "the classic convolutional GAN, BCE on logits, Adam for each network",
        "FD 199 (efficientnet-lite0, 128 px, 10,000 images): CIFAR-10 (JPEG copy), test, 2.00M images",
    ),
    "smalti-vit": Preset(
        RunConfig(
            recipe="contrastive",
            model=ContrastiveConfig(
                VisionTransformerConfig(stem_width=64, stride=8, width=256, depth=2, heads=4), blur=0.5
            ),
            train=LoopConfig(images=1_000_000, batch=256, average_half_life=50_000),
        ),
        "small vision transformer that learns features without labels, for evaluation",
        "linear probe 67.7 %: CIFAR-10 (JPEG copy), test, 0.24M images",
    ),
}


def preset(name: str) -> RunConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: no preset of that name, with the nearest one.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; {did_you_mean(name, PRESETS)}")
    config = PRESETS[name].config
    return RunConfig(config.recipe, config.model, config.data, config.train, preset=name)
