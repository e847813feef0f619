"""Presets of restorers. Imports no torch."""

from __future__ import annotations

import dataclasses

from smalti.config.code_restorer import CodeRestorerConfig
from smalti.config.data import DataConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.preset import Preset
from smalti.config.restorer import FlatConfig, RestorerConfig, RestorerNetworkConfig, UNetConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig

# Windows of photographs in their own resolution. Muon gains most in short trainings.
_PHOTOS = DataConfig(size=(320, 480), resize="crop", crop=64, channels=3)
_LOOP = LoopConfig(
    images=200_000, batch=16, ema_half_life=5_000, log_every=2_000, preview_every=50_000, save_every=50_000
)
_OPTIMIZER = OptimizerConfig("muon", 2e-3, 0.95, 0.99, schedule="cosine", warm_up=1_000)
_UNET = UNetConfig(width=32)
_FLAT = FlatConfig(patch=1, width=48, blocks=4)


def _restorer(
    degradation: str,
    network: RestorerNetworkConfig,
    about: str,
    *,
    crop: int = 64,
    sharp: bool = False,
    measured: str = "",
) -> Preset:
    """A restorer with a small error, or with `sharp` one whose pictures look right."""
    perceptual, adversary = PerceptualConfig(), AdversaryConfig()
    if sharp:
        perceptual = PerceptualConfig(weight=1.0, start=40_000)
        adversary = AdversaryConfig(weight=0.1, start=80_000)
    model = RestorerConfig(degradation, network, perceptual=perceptual, adversary=adversary, optimizer=_OPTIMIZER)
    data = dataclasses.replace(_PHOTOS, crop=crop)
    return Preset(RunConfig("restore", model, data, _LOOP), about, measured)


RESTORERS: dict[str, Preset] = {
    "denoise": _restorer(
        "noise(0..55)",
        _UNET,
        "removes noise, however strong",
        measured="30.67 dB (degraded 20.53) with noise of 25 levels: BSDS500, val, 110,000 images",
    ),
    "jpeg-repair": _restorer(
        "jpeg(5..70)",
        _UNET,
        "removes the blocks and rings of JPEG files",
        measured="27.04 dB (degraded 25.73) at quality 10: BSDS500, val, 110,000 images",
    ),
    "deblur": _restorer("blur(0.3..3)|motion(2..12)|defocus(0.5..4) noise(0..4)", _UNET, "sharpens photographs"),
    "colourise": _restorer("grey", UNetConfig(width=32, levels=4), "gives colours to grey photographs"),
    "super-x2": _restorer(
        "down(2)",
        _FLAT,
        "enlarges pictures to twice their size",
        measured="30.49 dB (bicubic 28.24): BSDS500, val, 64,000 images",
    ),
    "super-x4": _restorer(
        "down(4)",
        FlatConfig(width=48, blocks=6),
        "enlarges pictures to four times the size",
        crop=128,
        measured="25.91 dB (bicubic 24.65): BSDS500, val, 44,000 images",
    ),
    "restore-blind": _restorer(
        "second-order", UNetConfig(width=48), "repairs old and much shared photographs: blur, noise, JPEG", sharp=True
    ),
    "fill": _restorer(
        "mask(boxes|strokes,0.05..0.35)",
        UNetConfig(width=32, levels=4),
        "fills holes in photographs",
        crop=128,
        sharp=True,
    ),
    "restore-codes": Preset(
        RunConfig(
            "restore-codes",
            CodeRestorerConfig(
                "second-order",
                perceptual=PerceptualConfig(weight=1.0),
                optimizer=OptimizerConfig("muon", 1e-3, 0.95, 0.99, schedule="cosine", warm_up=1_000),
            ),
            dataclasses.replace(_PHOTOS, crop=128),
            _LOOP,
        ),
        "predicts the codes that a trained VQ-VAE gives undamaged photographs; how faithful, is chosen when applied",
    ),
}
