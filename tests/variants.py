"""Every kind of quantizer that the laws are checked on, small; a new kind joins here and in smalti.quantize."""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.config.quantizer import (
    BinaryConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)


def vector(**options: object) -> VectorConfig:
    return VectorConfig(**{"codes": 24, "dimension": 6} | options)  # type: ignore[arg-type]


EMA, GRADIENT = vector(update="ema"), vector(update="gradient")
SCALAR, BINARY = ScalarConfig(levels=(5, 4, 3)), BinaryConfig(bits=6)

VARIANTS: dict[str, QuantizerConfig] = {
    "vector-ema": EMA,
    "vector-gradient": GRADIENT,
    "vector-ema-projection": vector(projection=3),
    "vector-gradient-projection": vector(update="gradient", projection=3),
    "vector-ema-normalize": vector(normalize=True),
    "vector-gradient-normalize": vector(update="gradient", normalize=True),
    "vector-gradient-projection-normalize": vector(update="gradient", projection=4, normalize=True),
    "vector-ema-kmeans": vector(start="kmeans"),
    "vector-gradient-kmeans-normalize": vector(update="gradient", start="kmeans", normalize=True),
    "vector-ema-rotation": vector(gradient="rotation"),
    "vector-gradient-rotation": vector(update="gradient", gradient="rotation"),
    "vector-diveq": vector(update="gradient", gradient="diveq"),
    "vector-diveq-projection-normalize": vector(update="gradient", gradient="diveq", projection=3, normalize=True),
    "simvq": SimConfig(codes=24, dimension=6),
    "simvq-rotation": SimConfig(codes=24, dimension=6, gradient="rotation"),
    "scalar-odd": ScalarConfig(levels=(5, 3)),
    "scalar-even": ScalarConfig(levels=(8, 2, 4)),
    "scalar-mixed": SCALAR,
    "binary": BINARY,
    "binary-plane": BinaryConfig(bits=6, spherical=False),
    "binary-many": BinaryConfig(bits=13),
    "residual": ResidualConfig(layer=EMA, depth=3),
    "residual-gradient": ResidualConfig(layer=GRADIENT, depth=3),
    "residual-shared": ResidualConfig(layer=EMA, depth=3, shared=True),
    "residual-shared-gradient": ResidualConfig(layer=GRADIENT, depth=3, shared=True),
    "residual-dropout": ResidualConfig(layer=EMA, depth=4, dropout=0.5),
    "residual-rotation": ResidualConfig(layer=vector(gradient="rotation"), depth=2),
    "residual-diveq": ResidualConfig(layer=vector(update="gradient", gradient="diveq"), depth=2),
    "residual-projection": ResidualConfig(layer=vector(projection=3, normalize=True), depth=3),
    "residual-simvq": ResidualConfig(layer=SimConfig(codes=24, dimension=6), depth=2),
    "residual-scalar": ResidualConfig(layer=SCALAR, depth=3),
    "residual-scalar-dropout": ResidualConfig(layer=SCALAR, depth=3, dropout=0.5),
    "residual-binary": ResidualConfig(layer=BINARY, depth=3, shared=True),
    "product-vector": ProductConfig(layer=vector(dimension=3), groups=2),
    "product-scalar": ProductConfig(layer=SCALAR, groups=3),
    "product-binary": ProductConfig(layer=BINARY, groups=2),
}


def latents(config: QuantizerConfig, seed: int = 0, *, batch: int = 2, height: int = 5, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.dimension, height, width, generator=generator)


def vector_layer(config: QuantizerConfig) -> VectorConfig | None:
    """The codebook's settings, where there is a learned one that `vector.py` holds."""
    layer = getattr(config, "layer", config)
    return layer if isinstance(layer, VectorConfig) else None
