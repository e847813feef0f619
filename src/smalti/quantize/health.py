"""How well a codebook is used, and what to try when it is not: the collapse doctor.

`UsageMonitor` counts codes over the last images, plane by plane; `diagnose` turns the figures into a line of advice.

    used        share of the codes that occur at all
    perplexity  exp of the entropy of the counts, over K: the share that is used as if evenly
    norm ratio  root mean square of the encoder's latents over that of their codes: 1 where the codebook keeps up, and
                without a meaning where the quantizer moves latents to another place first (`codes_in_latent_space`)
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
    """Running counts of the codes, forgotten with a half-life of `half_life` images."""

    counts: Tensor

    def __init__(self, codebook_sizes: tuple[int, ...], *, half_life: int) -> None:
        super().__init__(counts=torch.zeros(len(codebook_sizes), max(codebook_sizes)))  # rows are padded with zeros
        self.codebook_sizes, self.half_life = codebook_sizes, half_life

    @torch.no_grad()
    def update(self, codes: Tensor, *, batch: int) -> None:
        """Count a batch.

        Args:
            codes: (B, P, H, W), this rank's share.
            batch: images over all ranks.
        """
        starts = torch.arange(len(self.codebook_sizes), device=codes.device) * self.counts.shape[1]
        counted = count_codes(codes + starts.view(1, -1, 1, 1), self.counts.numel())
        decay = 0.5 ** (batch / self.half_life)
        self.counts.mul_(decay).add_(all_reduce_sum(counted).view_as(self.counts))

    def mature(self) -> bool:
        """Whether so much was counted that every code could have been chosen `MATURE` times."""
        sizes = torch.tensor(self.codebook_sizes, device=self.counts.device)
        return bool((self.counts.sum(dim=1) >= MATURE * sizes).all())

    @torch.no_grad()
    def figures(self) -> dict[str, Tensor]:
        """Perplexity (mean over the planes), `used` (share of all codes) and `dead` (how many).

        A code is dead that has faded from the counts although it could have been chosen `MATURE` times.
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
def norm_ratio(latents: Tensor, quantized: Quantized) -> Tensor:
    """Size of the latents over the size of their codes, over all ranks."""
    squares = torch.stack([latents.float().square().mean(), quantized.values.square().mean()])
    of_latents, of_codes = all_reduce_sum(squares).sqrt()
    return of_latents / of_codes.clamp_min(1e-12)


def diagnose(
    codes: int,
    *,
    perplexity: float,
    used: float,
    ratio: float | None = None,
    config: QuantizerConfig = VectorConfig(),
) -> str | None:
    """What is wrong with a codebook, in a line for people; None while all is well.

    What stands before the colon has no figures in it, so that the same advice can be known again.

    Args:
        codes: K, the mean size of a plane's alphabet.
        perplexity, used: as `UsageMonitor.figures` gives them.
        ratio: as `norm_ratio` gives it; None where it has no meaning.
        config: of the quantizer; no setting is named that it does not have.
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
