"""Quantizers: latents to codes and back. A new one is one file and one line in `QUANTIZERS`."""

from __future__ import annotations

from typing import Any

from smalti.config import QuantizerConfig
from smalti.quantize.base import Quantized, Quantizer, count_codes, perplexity
from smalti.quantize.binary import BinaryQuantizer
from smalti.quantize.product import ProductQuantizer
from smalti.quantize.residual import ResidualQuantizer
from smalti.quantize.scalar import ScalarQuantizer
from smalti.quantize.simvq import SimVectorQuantizer
from smalti.quantize.vector import VectorQuantizer

# The keys are words of the file format: never renamed.
QUANTIZERS: dict[str, Any] = {
    "vector": VectorQuantizer,
    "simvq": SimVectorQuantizer,
    "scalar": ScalarQuantizer,
    "binary": BinaryQuantizer,
    "residual": ResidualQuantizer,
    "product": ProductQuantizer,
}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer a configuration names."""
    return QUANTIZERS[config.name].from_config(config)


__all__ = [
    "QUANTIZERS",
    "BinaryQuantizer",
    "ProductQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "ScalarQuantizer",
    "SimVectorQuantizer",
    "VectorQuantizer",
    "build_quantizer",
    "count_codes",
    "perplexity",
]
