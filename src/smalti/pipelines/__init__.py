"""Pipelines for inference with trained models, one file per kind.

model = smalti.load("runs/faces")       # a GAN, Autoencoder, Prior or Encoder
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.models.prior.sampling import Sampling
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.base import Pipeline, find_checkpoint, load
    from smalti.pipelines.encoder import Encoder
    from smalti.pipelines.gan import GAN
    from smalti.pipelines.prior import Prior

_MODULES = {
    "Autoencoder": "smalti.pipelines.autoencoder",
    "Encoder": "smalti.pipelines.encoder",
    "GAN": "smalti.pipelines.gan",
    "Pipeline": "smalti.pipelines.base",
    "Prior": "smalti.pipelines.prior",
    "Sampling": "smalti.models.prior.sampling",
    "find_checkpoint": "smalti.pipelines.base",
    "load": "smalti.pipelines.base",
}

__all__ = ["GAN", "Autoencoder", "Encoder", "Pipeline", "Prior", "Sampling", "find_checkpoint", "load"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'smalti.pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
