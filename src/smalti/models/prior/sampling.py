"""Sampling of codes from a prior: all of an image, or those in a hole.

    causal   token after token, from the logits that those before it give; keys and values are kept
    masked   in S steps: all hidden tokens are sampled, and the surest stay, so that floor(n cos(pi/2 s/S)) of n are
             hidden after step s; how sure is log p(code) + tau (1 - s/S) Gumbel noise, tau = 4.5

Temperature, then the k likeliest codes, then the fewest that have the probability p together. Guidance g:  logits =
(1 - g) logits without context + g logits with it.  A code is where the cumulative probability passes a uniform number
that belongs to the image, so that samples do not depend on the batch.
Sources: Chang et al. 2022, arXiv:2202.04200, section 3.2; Holtzman et al. 2020, arXiv:1904.09751, for p; Ho and
Salimans 2022, arXiv:2207.12598, equation 6 with g = 1 + w.  Layout: codes (B, P, H, W).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smalti.errors import ConfigError
from smalti.models.prior.block import Context
from smalti.models.prior.transformer import PriorTransformer
from smalti.runtime.rng import seeded_generator

CONFIDENCE_NOISE = 4.5
STEPS = 10
LEAST_TEMPERATURE = 1e-6  # below it the likeliest code is taken, as for 0


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    Attributes:
        temperature: 1 samples from the prior itself; lower values prefer likelier codes; 0 takes the likeliest.
        top_k: only this many of the likeliest codes; 0: all.
        top_p: only the likeliest codes whose probabilities add up to this.
        guidance: weight of the context, from 1.
        steps: of a masked prior; None: 10.

    Raises:
        ConfigError: one of them is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("temperature", self.temperature, 0, 100),
            ("top_k", self.top_k, 0, 2**31),
            ("top_p", self.top_p, 1e-6, 1),
            ("guidance", self.guidance, 0, 100),
            ("steps", self.passes, 1, 256),
        ):
            if not low <= value <= high:  # false for NaN too
                raise ConfigError(f"{name} is {value:g}, but must be from {low:g} to {high:g}")

    @property
    def passes(self) -> int:
        """Number of passes over all tokens of a masked prior."""
        return STEPS if self.steps is None else self.steps


def uniform_numbers(
    prior: PriorTransformer, numbers: Sequence[int], seed: int, steps: int, device: torch.device
) -> Tensor:
    """The uniform random numbers of images of these numbers: (B, steps, L, I + 1), steps 1 for a causal prior."""
    shape = (1 if prior.causal else steps, prior.length, prior.inner + 1)
    found = [torch.rand(shape, generator=seeded_generator(seed, 8, number), dtype=torch.float64) for number in numbers]
    exact = torch.float32 if device.type == "mps" else torch.float64  # Metal has no more
    return torch.stack(found).to(exact).to(device)


@torch.no_grad()
def sample(
    prior: PriorTransformer,
    uniform: Tensor,
    how: Sampling,
    *,
    context: Context | None = None,
    nothing: Context | None = None,
    codes: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """Sample the codes of images.

    Args:
        uniform: of `uniform_numbers`.
        context: what the images are to be of.
        nothing: the same with all of it left out, to guide away from; None: no guidance.
        codes: (B, P, H, W) of images that are there in part.
        hidden: (B, H, W) bool, which of their positions are sampled anew, equally many in each image; None: all.

    Returns:
        (B, P, H, W) int64.
    """
    prior, count, each = ready(prior), len(uniform), prior.length // (prior.grid[0] * prior.grid[1])
    tokens = torch.zeros(count, prior.length, prior.inner, dtype=torch.int64, device=uniform.device)
    wanted = torch.ones(count, prior.length, dtype=torch.bool, device=uniform.device)
    if codes is not None and hidden is not None:
        tokens = prior.tokens(codes).clone()
        wanted = hidden.flatten(1).repeat_interleave(each, dim=1)
    if context is not None and nothing is not None:
        context = Context(torch.cat([context.tokens, nothing.tokens]), torch.cat([context.there, nothing.there]))
    work = _Work(prior, uniform, how, context, guided=nothing is not None)
    return prior.codes((_sample_causal if prior.causal else _sample_masked)(work, tokens, wanted))


def ready(prior: PriorTransformer) -> PriorTransformer:
    """The same prior, whose weights need not be brought to the precision of autocast in every pass anew."""
    device = prior.table.device.type
    if not torch.is_autocast_enabled(device):
        return prior
    precision = torch.get_autocast_dtype(device)
    shared: dict[int, object] = {id(part): part for part in (*prior.parameters(), *prior.buffers())}
    for layer in prior.modules():
        if isinstance(layer, nn.Linear):
            shared[id(layer.weight)] = nn.Parameter(layer.weight.detach().to(precision), requires_grad=False)
    return copy.deepcopy(prior, shared)


@dataclass(frozen=True)
class _Work:
    """Constants of one sampling; with guidance everything goes through the prior with context and without."""

    prior: PriorTransformer
    uniform: Tensor
    how: Sampling
    context: Context | None
    guided: bool

    def twice(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) if self.guided else x

    def next_logits(self, features: Tensor, given: Tensor, at: int | None = None) -> Tensor:
        """(B, t, K), guided; `features` as of `twice`, `given` not."""
        logits = self.prior.next_logits(features, self.twice(given), at)
        if not self.guided:
            return logits
        wanted, nothing = logits.chunk(2)
        mixed = torch.lerp(nothing, wanted, self.how.guidance)
        return mixed.masked_fill(nothing == -math.inf, -math.inf)  # -inf - -inf is NaN


def _sample_causal(work: _Work, tokens: Tensor, wanted: Tensor) -> Tensor:
    caches = work.prior.caches(len(work.twice(tokens)), work.context)
    before = None
    for at in range(work.prior.length):
        features = work.prior.step(before, at, work.context, caches)
        token = tokens[:, at : at + 1, :0]
        for number in range(work.prior.inner):
            logits = work.next_logits(features, token, at)[:, 0]
            code, _ = choose(logits, work.uniform[:, 0, at, number], work.how)
            token = torch.cat([token, code[:, None, None]], dim=2)
        tokens[:, at] = torch.where(wanted[:, at, None], token[:, 0], tokens[:, at])
        before = work.twice(tokens[:, at : at + 1])
    return tokens


def _sample_masked(work: _Work, tokens: Tensor, wanted: Tensor) -> Tensor:
    hidden, count, steps = wanted.clone(), int(wanted[0].sum()), work.how.passes
    for step in range(steps):
        features = work.prior.masked_features(work.twice(tokens), work.twice(hidden), work.context)
        sampled, sure = _sample_all(work, features, work.uniform[:, step])
        tokens = torch.where(hidden[:, :, None], sampled, tokens)
        share = (step + 1) / steps
        gumbel = -torch.log(-torch.log(work.uniform[:, step, :, -1].clamp(1e-12, 1 - 1e-12)))
        sure = sure + CONFIDENCE_NOISE * (1 - share) * gumbel
        sure = sure.masked_fill(~hidden, math.inf)  # what is known stays
        left = 0 if step + 1 == steps else math.floor(count * math.cos(math.pi / 2 * share))
        unsure = sure.argsort(dim=1, stable=True)[:, :left]
        hidden = torch.zeros_like(hidden).scatter_(1, unsure, True)
    return tokens


def _sample_all(work: _Work, features: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Every token at once: (B, L, I) codes and (B, L) log-probabilities."""
    count, length = len(uniform), work.prior.length
    tokens = torch.zeros(count, length, 0, dtype=torch.int64, device=uniform.device)
    total = torch.zeros(count, length, dtype=uniform.dtype, device=uniform.device)
    for number in range(work.prior.inner):
        logits = work.next_logits(features, tokens)
        codes, sure = choose(logits.flatten(0, 1), uniform[:, :, number].flatten(), work.how)
        tokens = torch.cat([tokens, codes.view(count, length, 1)], dim=2)
        total = total + sure.view(count, length)
    return tokens, total


def choose(logits: Tensor, uniform: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """(N, K) logits and (N,) uniform numbers -> (N,) codes and the log-probabilities that they had."""
    logits = logits.to(uniform.dtype)
    if how.temperature < LEAST_TEMPERATURE:
        return logits.argmax(dim=1), torch.log_softmax(logits, dim=1).amax(dim=1)
    logits = logits / how.temperature
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if how.top_p < 1:
        ordered, ranking = logits.sort(dim=1, descending=True, stable=True)
        shares = torch.softmax(ordered, dim=1)
        beyond = shares.cumsum(dim=1) - shares >= how.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, ranking, beyond), -math.inf)
    log_shares = torch.log_softmax(logits, dim=1)
    cumulative = log_shares.exp().cumsum(dim=1)
    target = uniform[:, None] * cumulative[:, -1:]
    codes = torch.searchsorted(cumulative, target, right=True)[:, 0]
    # Rounding may lead past the last code that has any probability.
    last = logits.shape[1] - 1 - (log_shares.flip(1) > -math.inf).int().argmax(dim=1)
    codes = torch.minimum(codes, last)
    return codes, log_shares.gather(1, codes[:, None])[:, 0]
