"""Settings of the recipe `prior`: the transformer over codes, its factorisation and conditioning. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.optimizer import OptimizerConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class PriorConfig(ValidatedConfig):
    """Recipe `prior`: a transformer over the codes of a trained VQ-VAE: models/prior/transformer.py.

    `order` is the factorisation: autoregressive in raster order (`raster`); autoregressive in random orders that are
    annealed to raster order (`annealed`); or masked prediction (`masked`). The first two have a tractable likelihood;
    the last uses the context on all sides, for inpainting.
    """

    order: str = choice("raster", "annealed", "masked")
    # With several codes per position: one token per code, or one per position with a small depth transformer over them.
    planes: str = choice("auto", "sequence", "depth")
    width: int = number(256, 8, 8192)
    depth: int = number(6, 1, 128)
    heads: int = number(4, 1, 256)
    embedding: int = number(64, 1, 8192)  # dimension of the code embeddings, at the input and the output
    head_width: int = number(128, 8, 8192)  # of the depth transformer
    head_depth: int = number(2, 1, 64)
    dropout: float = number(0.1, 0.0, 0.95)
    condition: str = choice("none", "class", "text")
    condition_dropout: float = number(0.1, 0.0, 1.0)  # how often it is dropped, for classifier-free guidance
    text_bytes: int = number(64, 1, 4096)  # longest caption; longer ones are truncated
    text_parts: float = number(0.5, 0.0, 1.0)  # probability of using only one comma-separated part of a caption
    text_depth: int = number(2, 1, 64)
    anneal: float = number(0.75, 0.0, 1.0)  # for `annealed`: fraction of the training after which all orders are raster
    patience: int = number(5, 0, 10**6)  # early stopping after this many validations without improvement; 0: never
    optimizer: OptimizerConfig = OptimizerConfig("muon", 4e-3, 0.95, 0.98, weight_decay=0.05, schedule="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}, which {self.heads} heads cannot share evenly")
