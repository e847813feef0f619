"""Statistics of codebook use, and advice against a collapse.

`UsageMonitor` counts codes over the last images, plane by plane; `diagnose` turns the figures into a line of advice.

    used        share of the codes that occur at all
    perplexity  exp of the entropy of the counts, over K
    norm ratio  root mean square of the encoder's latents over that of their codes: 1 where the codebook keeps up;
                without meaning where the quantizer maps latents elsewhere first (`codes_in_latent_space`)
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from smalti.config.quantizer import QuantizerConfig, VectorConfig
from smalti.quantize.base import Quantized, count_codes
from smalti.runtime.distributed import all_reduce_sum
from smalti.runtime.state import TrainingState

MATURE = 20  # latents for each code that must have been seen before one can be called dead
FADED = 0.05  # a count under which a code was last seen more than four half-lives ago


class UsageMonitor(TrainingState):
    """Running counts of the codes, which decay with a half-life of `half_life` images."""

    counts: Tensor

    def __init__(self, codebook_sizes: tuple[int, ...], *, half_life: int) -> None:
        super().__init__(counts=torch.zeros(len(codebook_sizes), max(codebook_sizes)))  # rows are padded with zeros
        self.codebook_sizes, self.half_life = codebook_sizes, half_life

    @torch.no_grad()
    def update(self, codes: Tensor, *, batch: int, mask: Tensor | None = None) -> None:
        """Count the codes of a batch.

        Args:
            codes: (B, P, *grid), this rank's share.
            batch: images over all ranks.
            mask: (B, *grid) bool, false where a code is padding.
        """
        starts = torch.arange(len(self.codebook_sizes), device=codes.device) * self.counts.shape[1]
        indices = codes.movedim(1, -1) + starts
        counted = count_codes(indices if mask is None else indices[mask], self.counts.numel())
        decay = 0.5 ** (batch / self.half_life)
        self.counts.mul_(decay).add_(all_reduce_sum(counted).view_as(self.counts))

    def mature(self) -> bool:
        """Whether enough was counted for every code to have been chosen `MATURE` times."""
        sizes = torch.tensor(self.codebook_sizes, device=self.counts.device)
        return bool((self.counts.sum(dim=1) >= MATURE * sizes).all())

    @torch.no_grad()
    def figures(self) -> dict[str, Tensor]:
        """Perplexity (mean over the planes), `used` (share of all codes) and `dead` (their number).

        A code is dead if it has decayed from the counts although it could have been chosen `MATURE` times.
        """
        totals = self.counts.sum(dim=1, keepdim=True)
        sizes = torch.tensor(self.codebook_sizes, device=self.counts.device)[:, None]
        seen = (self.counts > FADED).sum(dim=1, keepdim=True)
        share = self.counts / totals.clamp_min(1)
        return {
            "perplexity": torch.exp(-torch.xlogy(share, share).sum(dim=1)).mean(),
            "used": seen.sum() / sizes.sum(),
            "dead": torch.where(totals >= MATURE * sizes, sizes - seen, 0).sum().float(),
        }


@torch.no_grad()
def norm_ratio(latents: Tensor, quantized: Quantized, *, mask: Tensor | None = None) -> Tensor:
    """Root mean square of the latents over that of their codes, over all ranks.

    Args:
        latents: (B, D, *grid).
        mask: (B, *grid) bool, false where a latent is padding.
    """
    if mask is None:
        squares = torch.stack([latents.float().square().mean(), quantized.values.square().mean()])
    else:
        kept = (tensor.movedim(1, -1)[mask].float() for tensor in (latents, quantized.values))
        squares = torch.stack([tensor.square().sum() for tensor in kept])
    of_latents, of_codes = all_reduce_sum(squares).sqrt()
    ratio: Tensor = of_latents / of_codes.clamp_min(1e-12)
    return ratio


def diagnose(
    codes: int,
    *,
    perplexity: float,
    used: float,
    ratio: float | None = None,
    config: QuantizerConfig = VectorConfig(),
) -> str | None:
    """Say in one line what is wrong with a codebook; None while nothing is.

    The text before the colon is the same whenever the advice is.

    Args:
        codes: K, the mean size of a plane's alphabet.
        perplexity, used: as `UsageMonitor.figures` gives them.
        ratio: as `norm_ratio` gives it; None where it has no meaning.
        config: of the quantizer; only settings that it has are named.
    """
    if perplexity < max(0.02 * codes, min(2.0, 0.6 * codes)):  # of two codes, no more than two can be used
        found = f"the codebook has collapsed: {perplexity:.1f} of {codes} codes are used as if evenly"
        remedies = {
            "update": "{}=ema",
            "dead_code_threshold": "{}=0.25",
            "normalize": "{}=true",
            "": "a lower learning rate",
        }
    elif ratio is not None and not 1 / 3 <= ratio <= 3:
        side = "grow away from" if ratio > 1 else "shrink below"
        found = f"the encoder's latents {side} the codebook: they have {ratio:.2g} times its size"
        remedies = {"commitment": "a larger {}", "decay": "a smaller {}", "": "a lower learning rate"}
    elif used < 0.5:
        found = f"many codes are dead: {100 * (1 - used):.0f} %"
        remedies = {"dead_code_threshold": "{}=0.25", "projection": "{}=8", "": "fewer codes"}
    elif perplexity < 0.25 * codes:
        found = f"few codes do most of the work: {perplexity:.0f} of {codes} as if evenly"
        remedies = {"normalize": "{}=true", "projection": "{}=8", "": "fewer codes"}
    else:
        return None
    layer = getattr(config, "layer", config)
    where = "quantizer" if layer is config else "quantizer.layer"
    settings = {"", *(entry.name for entry in dataclasses.fields(layer))}  # "": a remedy that is no setting of these
    tries = [words.format(f"{where}.{name}") for name, words in remedies.items() if name in settings]
    return f"{found}; try {' or '.join(tries)}"
