"""Quantizers: latents to codes and back. A new one is one file and one line in `QUANTIZERS`."""

from __future__ import annotations

from smalti.config import QuantizerConfig
from smalti.quantize.base import Quantized, Quantizer, count_codes, perplexity
from smalti.quantize.vector import VectorQuantizer

# The keys are words of the file format: never renamed.
QUANTIZERS = {"vector": VectorQuantizer}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer a configuration names."""
    return QUANTIZERS[config.name].from_config(config)


__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "VectorQuantizer", "build_quantizer", "count_codes", "perplexity"]
