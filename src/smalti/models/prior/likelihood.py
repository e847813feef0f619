"""Likelihood of codes under a prior, in bits: -log2 p(c_t | c_<t)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import ConfigError
from smalti.models.prior.image_prior import ImagePrior


def bits_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """(B, L, I, K) logits and (B, L, I) tokens -> (B, L, I) bits: -log2 of the probability of each."""
    nats = F.cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none")
    return nats.view(tokens.shape) / math.log(2)


@torch.no_grad()
def code_bits(
    generator: ImagePrior, codes: Tensor, *, labels: Tensor | None = None, texts: Sequence[str] | None = None
) -> Tensor:
    """Bits of each code, -log2 p(c | those before it): (B, P, h, w) float32; they add up to those of the image.

    Raises:
        ConfigError: the prior is masked, and has no likelihood.
    """
    check_likelihood(generator)
    return bits_of_codes(generator, codes, labels=labels, texts=texts)


def check_likelihood(generator: ImagePrior) -> None:
    """Raise ConfigError for a prior without a likelihood."""
    if not generator.prior.causal:
        raise ConfigError(
            "a masked prior knows no likelihood of an image; train one with model.order=raster or annealed"
        )


def bits_of_codes(
    generator: ImagePrior, codes: Tensor, *, labels: Tensor | None = None, texts: Sequence[str] | None = None
) -> Tensor:
    prior = generator.prior
    tokens = prior.tokens(codes)
    logits = prior.causal_logits(tokens, generator.context(labels, texts, len(codes)))
    bits = bits_of(logits, tokens)
    return bits.reshape(len(codes), -1, len(prior.codebook_sizes)).transpose(1, 2).unflatten(2, prior.grid)
