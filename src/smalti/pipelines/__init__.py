"""Pipelines for inference with trained models, one file per kind.

model = smalti.load("runs/faces")       # a GAN, Autoencoder, Prior, Encoder, Codec, CodeCodec, Restorer, ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smalti.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from smalti.checkpoint.find import find_checkpoint
    from smalti.models.prior.sampling import Sampling
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.base import Pipeline, load
    from smalti.pipelines.code_codec import CodeCodec
    from smalti.pipelines.code_restorer import CodeRestorer
    from smalti.pipelines.codec import Codec
    from smalti.pipelines.encoder import Encoder
    from smalti.pipelines.encoding import encode_dataset
    from smalti.pipelines.gan import GAN
    from smalti.pipelines.pillow import register_pillow
    from smalti.pipelines.prior import Prior
    from smalti.pipelines.restorer import Restorer
    from smalti.pipelines.translator import Translator

_HOMES = {
    "Autoencoder": "smalti.pipelines.autoencoder:Autoencoder",
    "CodeCodec": "smalti.pipelines.code_codec:CodeCodec",
    "CodeRestorer": "smalti.pipelines.code_restorer:CodeRestorer",
    "Codec": "smalti.pipelines.codec:Codec",
    "Encoder": "smalti.pipelines.encoder:Encoder",
    "GAN": "smalti.pipelines.gan:GAN",
    "Pipeline": "smalti.pipelines.base:Pipeline",
    "Prior": "smalti.pipelines.prior:Prior",
    "Restorer": "smalti.pipelines.restorer:Restorer",
    "Sampling": "smalti.models.prior.sampling:Sampling",
    "Translator": "smalti.pipelines.translator:Translator",
    "encode_dataset": "smalti.pipelines.encoding:encode_dataset",
    "find_checkpoint": "smalti.checkpoint.find:find_checkpoint",
    "load": "smalti.pipelines.base:load",
    "register_pillow": "smalti.pipelines.pillow:register_pillow",
}

__all__ = [
    "GAN",
    "Autoencoder",
    "CodeCodec",
    "CodeRestorer",
    "Codec",
    "Encoder",
    "Pipeline",
    "Prior",
    "Restorer",
    "Sampling",
    "Translator",
    "encode_dataset",
    "find_checkpoint",
    "load",
    "register_pillow",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
