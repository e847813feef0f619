"""Settings of the recipe `prior`: the transformer over codes, its order, its condition. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number
from smalti.config.optimizer import OptimizerConfig
from smalti.errors import ConfigError


@dataclass(frozen=True)
class PriorConfig(ValidatedConfig):
    """Recipe `prior`: a transformer over the codes of a trained VQ-VAE: models/prior/transformer.py.

    `order` is what it learns: each code from those before it, in rows from the top; the same, from random orders at
    first; or all that are hidden from all that are not. The first two know the likelihood of an image, the last looks
    at all that is around a hole.
    """

    order: str = choice("raster", "annealed", "masked")
    # Several codes at a place: each is a token of its own, or a small transformer goes through them at each place.
    planes: str = choice("auto", "sequence", "depth")
    width: int = number(256, 8, 8192)
    depth: int = number(6, 1, 128)
    heads: int = number(4, 1, 256)
    embedding: int = number(64, 1, 8192)  # numbers that a code is known by, at the input and at the output
    head_width: int = number(128, 8, 8192)  # of the transformer through the planes
    head_depth: int = number(2, 1, 64)
    dropout: float = number(0.1, 0.0, 0.95)
    condition: str = choice("none", "class", "text")
    condition_dropout: float = number(0.1, 0.0, 1.0)  # how often it is left out, so that there can be guidance
    text_bytes: int = number(64, 1, 4096)  # of a caption; what is longer is cut
    text_parts: float = number(0.5, 0.0, 1.0)  # how often one part alone is seen of a caption with commas in it
    text_depth: int = number(2, 1, 64)
    anneal: float = number(0.75, 0.0, 1.0)  # share of the training after which all orders are in rows, for `annealed`
    patience: int = number(5, 0, 10**6)  # scores in a row without a better one, then the training ends; 0: never
    optimizer: OptimizerConfig = OptimizerConfig("muon", 4e-3, 0.95, 0.98, weight_decay=0.05, schedule="cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}, which {self.heads} heads cannot share evenly")
