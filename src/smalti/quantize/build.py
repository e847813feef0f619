"""The table of quantizers by name, and the function that builds one from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smalti.config.quantizer import ProductConfig, QuantizerConfig, ResidualConfig
from smalti.quantize.base import Quantizer
from smalti.quantize.binary import BinaryQuantizer
from smalti.quantize.grouped import GroupedVectorQuantizer
from smalti.quantize.product import ProductQuantizer
from smalti.quantize.residual import ResidualQuantizer
from smalti.quantize.scalar import ScalarQuantizer
from smalti.quantize.simvq import SimVectorQuantizer
from smalti.quantize.vector import VectorQuantizer


def _residual(config: ResidualConfig) -> Quantizer:
    if config.shared:
        return ResidualQuantizer(build_quantizer(config.layer), config.depth, dropout=config.dropout)
    layers = [build_quantizer(config.layer) for _ in range(config.depth)]
    return ResidualQuantizer(layers, dropout=config.dropout)


def _product(config: ProductConfig) -> Quantizer:
    if GroupedVectorQuantizer.covers(config.layer):
        return GroupedVectorQuantizer.from_config(config)
    return ProductQuantizer([build_quantizer(config.layer) for _ in range(config.groups)])


# The keys are words of the file format: never renamed.
QUANTIZERS: dict[str, Callable[[Any], Quantizer]] = {
    "vector": VectorQuantizer.from_config,
    "simvq": SimVectorQuantizer.from_config,
    "scalar": ScalarQuantizer.from_config,
    "binary": BinaryQuantizer.from_config,
    "residual": _residual,
    "product": _product,
}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """Build the quantizer that a configuration describes."""
    return QUANTIZERS[config.name](config)
