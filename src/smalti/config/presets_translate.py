"""Presets of translators. Imports no torch."""

from __future__ import annotations

from smalti.config.data import DataConfig
from smalti.config.optimizer import OptimizerConfig
from smalti.config.preset import Preset
from smalti.config.restorer import UNetConfig
from smalti.config.run import LoopConfig, RunConfig
from smalti.config.translator import PairsConfig, PatchesConfig, TranslatorConfig
from smalti.config.vqvae import AdversaryConfig, PerceptualConfig

_DATA = DataConfig(size=(64, 64), channels=3, flip=False)  # mirrored letters and flags are other ones
_LOOP = LoopConfig(
    images=1_000_000, batch=16, ema_half_life=5_000, log_every=2_000, preview_every=20_000, save_every=20_000
)
# Every result sees far beyond its place: another style moves outlines.
_NETWORK = UNetConfig(patch=2, width=48, levels=4, blocks=1, middle=2)

TRANSLATORS: dict[str, Preset] = {
    "restyle-paired": Preset(
        RunConfig(
            "translate",
            TranslatorConfig(
                _NETWORK,
                PairsConfig(loss="l1", loss_weight=4.0, perceptual=PerceptualConfig(weight=1.0, start=10_000)),
                AdversaryConfig(weight=0.1, start=40_000),
                OptimizerConfig("muon", 2e-3, 0.95, 0.99, schedule="cosine", warm_up=1_000),
            ),
            _DATA,
            _LOOP,
        ),
        "gives pictures another style, learned from pairs",
    ),
    "restyle-unpaired": Preset(
        RunConfig(
            "translate",
            TranslatorConfig(
                _NETWORK,
                PatchesConfig(),
                AdversaryConfig(weight=1.0, adaptive=False, ramp=0, loss="least-squares"),
                OptimizerConfig("adam", 2e-4, 0.5, 0.999, schedule="cosine", warm_up=1_000),
            ),
            _DATA,
            _LOOP,
        ),
        "gives pictures another style, learned from pictures of both without pairs",
    ),
}
