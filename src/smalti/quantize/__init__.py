"""Quantizers: latents to codes and back. A new one is one file and one line in `QUANTIZERS` of build.py."""

from smalti.quantize.base import Quantized, Quantizer, count_codes, perplexity
from smalti.quantize.binary import BinaryQuantizer
from smalti.quantize.build import QUANTIZERS, build_quantizer
from smalti.quantize.product import ProductQuantizer
from smalti.quantize.residual import ResidualQuantizer
from smalti.quantize.scalar import ScalarQuantizer
from smalti.quantize.simvq import SimVectorQuantizer
from smalti.quantize.vector import VectorQuantizer

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
