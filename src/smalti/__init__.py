"""smalti: train GANs and VQ-VAEs on your own images, then generate, reconstruct and measure.

    data = smalti.datasets.load("photos/", size=(64, 64))
    smalti.train(smalti.preset("gan-nano"), data, "runs/faces", budget_seconds=3600)
    pictures = smalti.load("runs/faces").generate(16, seed=0)       # (16, H, W, C) uint8

Names are imported when they are first used, so that `import smalti` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smalti._version import __version__
from smalti.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from smalti import data as datasets
    from smalti import metrics, pipelines, quantize
    from smalti.config.kinds import KINDS, ModelKind
    from smalti.config.parse import override
    from smalti.config.presets import PRESETS, preset
    from smalti.config.run import RunConfig
    from smalti.errors import SmaltiError
    from smalti.models.prior.sampling import Sampling
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.base import Pipeline, load
    from smalti.pipelines.code_codec import CodeCodec
    from smalti.pipelines.code_restorer import CodeRestorer
    from smalti.pipelines.codec import Codec
    from smalti.pipelines.encoder import Encoder
    from smalti.pipelines.gan import GAN
    from smalti.pipelines.pillow import register_pillow
    from smalti.pipelines.prior import Prior
    from smalti.pipelines.restorer import Restorer
    from smalti.pipelines.translator import Translator
    from smalti.report.pictures import save_grid
    from smalti.runtime.device import Machine
    from smalti.training.loop import Result, train

# Where each name is, "module:name"; a module alone is the name itself.
_HOMES = {
    "Autoencoder": "smalti.pipelines.autoencoder:Autoencoder",
    "CodeCodec": "smalti.pipelines.code_codec:CodeCodec",
    "CodeRestorer": "smalti.pipelines.code_restorer:CodeRestorer",
    "Codec": "smalti.pipelines.codec:Codec",
    "Encoder": "smalti.pipelines.encoder:Encoder",
    "GAN": "smalti.pipelines.gan:GAN",
    "KINDS": "smalti.config.kinds:KINDS",
    "Machine": "smalti.runtime.device:Machine",
    "ModelKind": "smalti.config.kinds:ModelKind",
    "PRESETS": "smalti.config.presets:PRESETS",
    "Pipeline": "smalti.pipelines.base:Pipeline",
    "Prior": "smalti.pipelines.prior:Prior",
    "Restorer": "smalti.pipelines.restorer:Restorer",
    "Result": "smalti.training.loop:Result",
    "RunConfig": "smalti.config.run:RunConfig",
    "Sampling": "smalti.models.prior.sampling:Sampling",
    "SmaltiError": "smalti.errors:SmaltiError",
    "Translator": "smalti.pipelines.translator:Translator",
    "datasets": "smalti.data",
    "load": "smalti.pipelines.base:load",
    "metrics": "smalti.metrics",
    "override": "smalti.config.parse:override",
    "pipelines": "smalti.pipelines",
    "preset": "smalti.config.presets:preset",
    "quantize": "smalti.quantize",
    "register_pillow": "smalti.pipelines.pillow:register_pillow",
    "save_grid": "smalti.report.pictures:save_grid",
    "train": "smalti.training.loop:train",
}

__all__ = [
    "GAN",
    "KINDS",
    "PRESETS",
    "Autoencoder",
    "CodeCodec",
    "CodeRestorer",
    "Codec",
    "Encoder",
    "Machine",
    "ModelKind",
    "Pipeline",
    "Prior",
    "Restorer",
    "Result",
    "RunConfig",
    "Sampling",
    "SmaltiError",
    "Translator",
    "__version__",
    "datasets",
    "load",
    "metrics",
    "override",
    "pipelines",
    "preset",
    "quantize",
    "register_pillow",
    "save_grid",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
