"""Presets: named training configurations, with their measured scores. Imports no torch."""

from __future__ import annotations

from typing import Any

from smalti.config.autoencoder import ClassicConfig, ModernConfig, TransformConfig
from smalti.config.code_context import CodeContextConfig
from smalti.config.codec import CodecConfig, ContextConfig
from smalti.config.contrastive import ContrastiveConfig, VisionTransformerConfig
from smalti.config.data import DataConfig
from smalti.config.gan import (
    AnnealConfig,
    AugmentationConfig,
    DCGANConfig,
    DiscriminatorConfig,
    GANConfig,
    PenaltyConfig,
    R3GANConfig,
    SNGANConfig,
)
from smalti.config.optimizer import OptimizerConfig
from smalti.config.preset import Preset
from smalti.config.presets_restore import RESTORERS
from smalti.config.presets_translate import TRANSLATORS
from smalti.config.prior import PriorConfig
from smalti.config.quantizer import ProductConfig, ResidualConfig, ScalarConfig, VectorConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig, VQVAEConfig
from smalti.errors import ConfigError, did_you_mean

_CLASSIC = ClassicConfig("residual", width=128, residual_width=32, residual_blocks=2, stride=4)
# 64 codes of 9 bits per tile. A tile has six pixel values per latent value, hence the loss weight of 6.
_TILES = TransformConfig(stride=32, patch=2, width=96, encoder_blocks=1, decoder_blocks=3)
_NARROW_TILES = TransformConfig(stride=32, patch=2, width=48, encoder_blocks=1, decoder_blocks=3)
_CODES_OF_TILES = ProductConfig(
    layer=VectorConfig(codes=512, dimension=8, decay=0.999, commitment=1.0, dead_code_threshold=0.05), groups=64
)
_CODES = DataConfig(flip=False)  # codes cannot be mirrored; smalti encode --flip encodes mirrored images
_PLAIN_LOOP = LoopConfig(images=2_000_000, batch=64, ema_half_life=20_000)
_COSINE = OptimizerConfig(learning_rate=1.5e-3, beta2=0.99, schedule="cosine", warm_up=5_000)


def _perceptual(start: int) -> PerceptualConfig:
    return PerceptualConfig(weight=2.0, network="efficientnet-lite0", start=start, every=4)


def _feature_adversary(start: int) -> AdversaryConfig:
    optimizer = OptimizerConfig(learning_rate=1e-3, beta1=0.5, beta2=0.99)
    return AdversaryConfig(
        inputs="features", weight=0.15, adaptive=False, start=start, ramp=10_000, optimizer=optimizer
    )


def _prior_optimizer(rate: float, warm_up: int) -> OptimizerConfig:
    return OptimizerConfig("muon", rate, 0.95, 0.98, weight_decay=0.05, schedule="cosine", warm_up=warm_up)


_CODEC_OPTIMIZER = OptimizerConfig(learning_rate=1e-3, beta2=0.99, schedule="cosine", warm_up=2_000)
_TINY_CODEC = CodecConfig(
    tile=32, coefficients=1024, patch=2, width=48, blocks=2, context=ContextConfig(groups=12, width=192),
    rate_weight=0.19, quality_low=6, quality_high=66, rounds=3, optimizer=_CODEC_OPTIMIZER,
)  # fmt: skip
_PHOTO_CODEC = CodecConfig(
    tile=16, coefficients=768, patch=2, width=64, blocks=3,
    context=ContextConfig(groups=8, width=192, neighbours=True, shared=48),
    rate_weight=0.12, quality_low=16, quality_high=70, rounds=3, optimizer=_CODEC_OPTIMIZER,
)  # fmt: skip
_NO_PENALTY = PenaltyConfig(r1=False, r2=False)


def _gan(network: R3GANConfig, rate: float, *, anneal: AnnealConfig, beta2: float = 0.99, **others: Any) -> GANConfig:
    """Relativistic loss with R1 and R2, and the same learning rate for both networks."""
    optimizer = OptimizerConfig(learning_rate=rate, beta1=0.0, beta2=beta2)
    return GANConfig(
        64, network, generator_optimizer=optimizer, discriminator_optimizer=optimizer, anneal=anneal, **others
    )


def _classic_gan(
    latent: int, network: DCGANConfig | SNGANConfig, loss: str, optimizer: OptimizerConfig, generator_every: int = 1
) -> GANConfig:
    """A GAN with a classic loss and without gradient penalties."""
    return GANConfig(
        latent, network, loss=loss, penalty=_NO_PENALTY, generator_every=generator_every, resample_for_generator=False,
        generator_optimizer=optimizer, discriminator_optimizer=optimizer,
    )  # fmt: skip


PRESETS: dict[str, Preset] = {
    "vqvae": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                _CLASSIC,
                VectorConfig(codes=512, dimension=64, update="ema"),
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            train=_PLAIN_LOOP,
        ),
        "VQ-VAE with the paper's residual blocks, 512 codes, EMA codebook",
        "24.92 dB, perplexity 426, FD 121 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, "
        "0.32M images; 25.35 dB, perplexity 417 at 2.00M images with dead_code_threshold=0.05",
    ),
    "vqvae-best": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(_TILES, _CODES_OF_TILES, loss_weight=6.0, optimizer=_COSINE),
            data=DataConfig(shift=1),
            train=LoopConfig(images=2_000_000, batch=64, ema_half_life=5_000),
        ),
        "lowest distortion at its bit rate: a learned transform of 32x32 tiles, 64 codes of 9 bits per tile",
        "26.13 dB (26.65 with --effort 16), perplexity 445, FD 74 (efficientnet-lite0, 128 px, bf16): "
        "CIFAR-10 (JPEG copy), test, 0.54M images",
    ),
    "vqgan": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                _NARROW_TILES,
                _CODES_OF_TILES,
                loss_weight=6.0,
                perceptual=_perceptual(200_000),
                adversary=_feature_adversary(200_000),
                optimizer=_COSINE,
            ),
            train=LoopConfig(images=2_000_000, batch=64, ema_half_life=5_000),
        ),
        "bit rate of vqvae-best with a narrower network and perceptual and adversarial losses: realism over distortion",
        "24.70 dB, perplexity 447, FD 28 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, 0.33M images",
    ),
    "tokenizer-32": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ModernConfig(width=128, blocks=2, stride=4, patch=2, attention=True),
                VectorConfig(codes=512, dimension=8, commitment=1.5),
                loss_weight=6.0,
                perceptual=_perceptual(150_000),
                adversary=_feature_adversary(150_000),
                optimizer=OptimizerConfig(learning_rate=7e-4, beta2=0.99, schedule="cosine", warm_up=5_000),
                freeze_encoder_at=150_000,
            ),
            train=LoopConfig(images=2_000_000, batch=64, ema_half_life=5_000),
        ),
        "tokenizer of small images for a prior: stride 4, one code per position, perceptual and adversarial losses",
        "23.88 dB, perplexity 474, FD 36 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, 0.23M images",
    ),
    "fsq": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(_CLASSIC, ScalarConfig(levels=(8, 8, 8)), optimizer=OptimizerConfig(learning_rate=1e-3)),
            train=_PLAIN_LOOP,
        ),
        "the network of vqvae with finite scalar quantization, 8 x 8 x 8 levels: no codebook, nothing to collapse",
        "24.38 dB, perplexity 324, FD 166 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, 0.35M images",
    ),
    "rvq": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ClassicConfig("residual", width=128, residual_width=32, residual_blocks=2, stride=8),
                ResidualConfig(layer=VectorConfig(codes=512, dimension=64), depth=4, dropout=0.1),
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            train=_PLAIN_LOOP,
        ),
        "residual quantization: four codes per position of a coarser grid; the first codes alone can be decoded too",
        "24.04 dB, perplexity 459, FD 188 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, 0.45M images",
    ),
    "tokenizer-256": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ModernConfig(width=128, blocks=1, stride=16, patch=4, attention=True),
                VectorConfig(codes=8192, dimension=128, projection=8, normalize=True),
                perceptual=PerceptualConfig(weight=0.5, every=4),
                adversary=AdversaryConfig(weight=0.5, start=200_000, ramp=100_000),
                optimizer=OptimizerConfig(learning_rate=4e-4, beta2=0.99, schedule="cosine", warm_up=5_000),
            ),
            data=DataConfig(size=(256, 256)),
            train=LoopConfig(images=2_000_000, batch=32, ema_half_life=10_000),
        ),
        "tokenizer of larger images: stride 16, 8192 L2-normalised codes of dimension 8",
        "19.61 dB, perplexity 5463: BSDS500, val, 256 px, after only 5,304 images, in batches of 8",
    ),
    "vqvae-64": Preset(
        RunConfig(
            recipe="vqvae",
            model=VQVAEConfig(
                ClassicConfig("plain", width=128, stride=4),
                VectorConfig(codes=64, dimension=64, update="gradient"),
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            train=_PLAIN_LOOP,
        ),
        "VQ-VAE of plain 3x3 convolutions with BN and LeakyReLU, 64 codes learned by gradient",
    ),
    "gan-nano": Preset(
        RunConfig(
            recipe="gan",
            # R1 and R2 need a second backward pass, so they are applied only in every eighth step. On a CPU few images
            # are seen, and many steps with small batches train faster than few with large ones. The learning rate is
            # annealed over a fixed number of images, so that a short training equals the start of a long one.
            model=_gan(
                R3GANConfig(width=192, generator="upsampling", generator_width=64, generator_taper=1.0),
                1e-3,
                anneal=AnnealConfig(1_000_000, learning_rate=0.1),
                resample_for_generator=False,
                penalty=PenaltyConfig(every=8),
                discriminator=DiscriminatorConfig(inputs="both"),
            ),
            train=LoopConfig(images=2_000_000, batch=16, ema_half_life=20_000),
        ),
        "relativistic loss on pixels and features, R1 and R2, small networks, modulated generator; for a CPU",
        "FD 66 (efficientnet-lite0, 128 px, bf16): CIFAR-10 (JPEG copy), test, 0.72M images, 120 minutes of one core; "
        "75 at 0.25M, 40 minutes",
    ),
    "gan-small": Preset(
        RunConfig(
            recipe="gan",
            model=_gan(
                R3GANConfig(width=256, taper=0.8, blocks=2),
                5e-4,
                anneal=AnnealConfig(10_000_000, learning_rate=0.25, gamma=0.1),
            ),
            train=LoopConfig(images=20_000_000, batch=128, ema_half_life=200_000),
        ),
        "the R3GAN network with dense blocks, discriminator on pixels only; for hours on a GPU",
    ),
    "gan-base": Preset(
        RunConfig(
            recipe="gan",
            model=_gan(
                R3GANConfig(width=384, taper=1.0, blocks=2, block="grouped", patch=1, resample="smooth"),
                2e-4,
                beta2=0.9,
                anneal=AnnealConfig(20_000_000, learning_rate=0.25, gamma=0.1, beta2=0.99),
            ),
            train=LoopConfig(images=100_000_000, batch=256, ema_half_life=2_000_000),
        ),
        "the R3GAN network at half its width; for days on a GPU",
    ),
    "r3gan-cifar10": Preset(
        RunConfig(
            recipe="gan",
            model=_gan(
                R3GANConfig(width=768, taper=1.0, blocks=2, block="grouped", patch=1, resample="smooth"),
                2e-4,
                beta2=0.9,
                anneal=AnnealConfig(20_000_000, learning_rate=0.25, gamma=0.1, beta2=0.99),
                conditional=True,
                penalty=PenaltyConfig(gamma=0.05),
                augmentation=AugmentationConfig(probability=0.55, ramp=20_000_000, flip=True),
            ),
            train=LoopConfig(images=250_000_000, batch=512, ema_half_life=5_000_000),
        ),
        "class-conditional R3GAN for CIFAR-10 with the published hyperparameters; for days on several GPUs",
    ),
    "sngan": Preset(
        RunConfig(
            recipe="gan",
            model=_classic_gan(
                128, SNGANConfig(), "hinge", OptimizerConfig(learning_rate=2e-4, beta1=0.0, beta2=0.9), 5
            ),
            train=_PLAIN_LOOP,
        ),
        "the classic residual GAN, hinge loss, spectral normalisation",
    ),
    "dcgan": Preset(
        RunConfig(
            recipe="gan",
            model=_classic_gan(100, DCGANConfig(), "bce", OptimizerConfig(learning_rate=2e-4, beta1=0.5)),
            train=_PLAIN_LOOP,
        ),
        "the classic convolutional GAN, BCE on logits, Adam for each network",
        "FD 199 (efficientnet-lite0, 128 px, 10,000 images): CIFAR-10 (JPEG copy), test, 2.00M images",
    ),
    "prior-nano": Preset(
        RunConfig(
            recipe="prior",
            data=_CODES,
            model=PriorConfig(
                width=256,
                depth=4,
                dropout=0.0,
                optimizer=_prior_optimizer(4e-3, 20_000),
            ),
            train=LoopConfig(images=1_000_000, batch=64, ema_half_life=20_000),
        ),
        "autoregressive transformer over the codes of a VQ-VAE: samples images, computes their likelihood; for a CPU",
        "7.04 bits per code of tokenizer-32, FD 54 (reconstructions: 32; efficientnet-lite0, 128 px, bf16): "
        "CIFAR-10 (JPEG copy), test, 0.63M images, 1,000 groups, guidance 2.5",
    ),
    "prior-small": Preset(
        RunConfig(
            recipe="prior",
            data=_CODES,
            model=PriorConfig(
                order="annealed",
                width=512,
                depth=12,
                heads=8,
                embedding=128,
                optimizer=_prior_optimizer(2e-3, 100_000),
            ),
            train=LoopConfig(images=20_000_000, batch=256, ema_half_life=200_000),
        ),
        "larger autoregressive transformer, trained with random orders annealed to raster order; for hours on a GPU",
    ),
    "maskgit-small": Preset(
        RunConfig(
            recipe="prior",
            data=_CODES,
            model=PriorConfig(
                order="masked",
                width=256,
                depth=6,
                optimizer=_prior_optimizer(4e-3, 20_000),
            ),
            train=LoopConfig(images=2_000_000, batch=64, ema_half_life=20_000),
        ),
        "masked transformer over the codes of a VQ-VAE: samples images in 10 steps, fills holes",
        "FD 171 (efficientnet-lite0, 128 px, bf16), with holes filled 105: CIFAR-10 (JPEG copy), test, 0.21M images",
    ),
    "text-emoji": Preset(
        RunConfig(
            recipe="prior",
            data=_CODES,
            model=PriorConfig(
                width=256,
                depth=4,
                dropout=0.2,
                condition="text",
                text_bytes=96,
                optimizer=_prior_optimizer(4e-3, 20_000),
            ),
            train=LoopConfig(images=500_000, batch=64, ema_half_life=20_000),
        ),
        "text-conditional prior-nano: samples images for a prompt; for the emoji that come with smalti",
        "correct category (of nine) for 36 of 50 prompts: emoji, test, 0.06M images",
    ),
    "context": Preset(
        RunConfig("context", CodeContextConfig(), _CODES, LoopConfig(images=500_000, batch=64, ema_half_life=5_000)),
        "entropy coding of the codes of a VQ-VAE, trained after it: smalti train context --of RUN",
        "6.95 bits per code of vqvae (fixed length: 9, by frequency: 8.74): CIFAR-10 (JPEG copy), test, 0.16M images",
    ),
    "codec-tiny": Preset(
        RunConfig("codec", _TINY_CODEC, train=LoopConfig(images=2_000_000, batch=128, ema_half_life=20_000)),
        "codec for pictures of some ten pixels a side: thumbnails, sprites, tiles of maps",
        "55.9 bytes a file at 25 dB (WebP 137.7): CIFAR-10 (JPEG copy), test, 0.68M images",
    ),
    "codec-photo": Preset(
        RunConfig(
            recipe="codec",
            data=DataConfig(size=(320, 480), resize="crop", crop=128, channels=3),
            model=_PHOTO_CODEC,
            train=LoopConfig(images=300_000, batch=8, ema_half_life=5_000, log_every=500, save_every=10_000),
        ),
        "codec for photographs of any size",
        "25.5 dB at .2 bits a pixel (WebP 24.7, AVIF 25.5): BSDS500, val, 10 photographs, 0.04M windows",
    ),
    **RESTORERS,
    **TRANSLATORS,
    "smalti-vit": Preset(
        RunConfig(
            recipe="contrastive",
            model=ContrastiveConfig(
                VisionTransformerConfig(stem_width=64, stride=8, width=256, depth=2, heads=4), blur=0.5
            ),
            train=LoopConfig(images=1_000_000, batch=256, ema_half_life=50_000),
        ),
        "small vision transformer, self-supervised features for evaluation",
        "linear probe 67.7 %: CIFAR-10 (JPEG copy), test, 0.24M images",
    ),
}


def preset(name: str) -> RunConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none; the message suggests the closest name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; {did_you_mean(name, PRESETS)}")
    config = PRESETS[name].config
    return RunConfig(config.recipe, config.model, config.data, config.train, preset=name)
