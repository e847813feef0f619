"""Settings of the recipe `context`: the context net for the codes of a VQ-VAE. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, number
from smalti.config.optimizer import OptimizerConfig


@dataclass(frozen=True)
class CodeContextConfig(ValidatedConfig):
    """Recipe `context`: entropy coding of the codes of a trained VQ-VAE: models/codec/code_context.py."""

    embedding: int = number(32, 1, 1024)  # dimension of the code embeddings
    width: int = number(192, 8, 4096)  # hidden units
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=8e-3, beta2=0.99, schedule="cosine", warm_up=2_000)
