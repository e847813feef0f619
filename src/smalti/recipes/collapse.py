"""Detection of mode collapse and divergence in GAN training.

    diversity   mean over pairs of |phi(a) - phi(b)|^2 of images from fixed latents, relative to that of real images
    gap         EMA of |D(real) - D(fake)| with a half-life of 500 images

phi are the features of smalti-vit, which comes with smalti. Healthy values depend on the loss and the data, so each
check compares them with this training's own history: EMAs of their logarithms over about ten checks.

    the generator collapsed      the diversity is below a quarter of its average, or has not reached 1/50 of the data's
                                 after 50,000 images and 500 steps
    the generator ran away       its mean absolute pixel value exceeds 2, twice the largest value in data
    the discriminator ran away   the gap exceeds 15, and 15 times its average
    the quality fell             the Frechet distance (FD) of the EMA weights exceeds twice the best of two or more

All of this is part of the resume state, so a resumed training is monitored like one that was never interrupted.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from smalti.features.extractor import Extractor, extractor
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.state import TrainingState

GAP_HALF_LIFE = 500  # images
EMA_DECAY = 0.9  # of the averages, per check
FIRST_LOOKS = 3  # checks before the averages are used
DIVERSITY_FACTOR = 0.25  # smallest diversity, relative to its average
# Images less diverse than this are not yet trained, or batch normalisation has no statistics yet: not averaged.
LEAST_DIVERSITY = 0.02
# Images and steps by which it must be reached; dcgan needs 20,000 images at a third of its learning rate.
LATEST_BEGIN, LATEST_STEPS = 50_000, 500
LARGEST_PIXEL = 2.0  # mean absolute value; at most 1 in data
LARGEST_GAP, GAP_FACTOR = 15.0, 15.0
FD_FACTOR = 2.0


class CollapseMonitor(TrainingState):
    """Diversity, gap and Frechet distance of a training, and their history.

    Attributes:
        data_spread: () mean squared feature distance between pairs of real images.
        gap: () EMA of the gap.
        log_averages: (2,) EMAs of log diversity and log gap.
        checks: () number of checks in them.
        images_seen: () training images so far.
        distances: (2,) the best Frechet distance so far, and how many were measured.
    """

    data_spread: Tensor
    gap: Tensor
    log_averages: Tensor
    checks: Tensor
    images_seen: Tensor
    distances: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__(
            data_spread=torch.zeros(()),
            gap=torch.zeros(()),
            log_averages=torch.zeros(2),
            checks=torch.zeros((), dtype=torch.int64),
            images_seen=torch.zeros((), dtype=torch.int64),
            distances=torch.zeros(2),
        )
        self._device, self._batch = device, 1
        self._extractor: Extractor | None = None

    def features(self, pixels: np.ndarray) -> Tensor:
        """Features of images: (N, H, W, C) uint8 -> (N, D) float32 on the CPU."""
        return self._network().features(pixels)

    @property
    def dimension(self) -> int:
        """D, the length of a feature vector."""
        return self._network().dimension

    def _network(self) -> Extractor:
        if self._extractor is None:
            self._extractor = extractor("smalti-vit", device=self._device)
        return self._extractor

    def observe_data(self, pixels: np.ndarray) -> None:
        """Set `data_spread` from real images, (N, H, W, C) uint8, which must be the same on every rank."""
        self.data_spread.fill_(mean_squared_distance(self.features(pixels)))

    def observe_logits(self, real: Tensor, fake: Tensor, batch: int) -> Tensor:
        """Update the gap with the logits of a step, (B,) or (B, J) on each rank; `batch` is over all ranks.

        Returns:
            () the gap.
        """
        gap = all_reduce_sum((real - fake).abs().mean()) / world()
        self.images_seen += batch
        self._batch = batch
        self.gap.lerp_(gap.to(self.gap.dtype), 1 - 0.5 ** (batch / GAP_HALF_LIFE))
        return self.gap.clone()

    def diagnostics(
        self, images: Tensor, pixels: np.ndarray, *, remember: bool = True
    ) -> tuple[dict[str, float], str | None]:
        """Check images of the fixed latents for a collapse.

        Args:
            images: (N, C, H, W), as generated.
            pixels: the same images as (N, H, W, C) uint8.
            remember: whether to update the averages if nothing is wrong.

        Returns:
            Figures to log, and a message if the training has collapsed, else None.
        """
        diversity = mean_squared_distance(self.features(pixels)) / max(float(self.data_spread), 1e-12)
        mean_pixel, gap = float(images.abs().mean()), float(self.gap)
        problem = self._problem(diversity, mean_pixel, gap)
        if problem is None and diversity >= LEAST_DIVERSITY and remember:
            logs = torch.tensor([math.log(max(diversity, 1e-6)), math.log(max(gap, 1e-6))])
            weight = max(1 - EMA_DECAY, 1 / (int(self.checks) + 1))
            self.log_averages.lerp_(logs.to(self.log_averages.device), weight)
            self.checks += 1
        return {"diversity": round(diversity, 4)}, problem

    def _problem(self, diversity: float, mean_pixel: float, gap: float) -> str | None:
        """The collapse that the figures show, or None."""
        if not math.isfinite(mean_pixel) or mean_pixel > LARGEST_PIXEL:
            return f"the generator ran away: its pixels are {mean_pixel:.3g} large on average, but data has 1 at most"
        late = int(self.images_seen) >= max(LATEST_BEGIN, LATEST_STEPS * self._batch)
        if int(self.checks) == 0 and late and diversity < LEAST_DIVERSITY:
            return (
                f"the generator collapsed: after {int(self.images_seen):,} images its pictures still differ by "
                f"{diversity:.3f} of what the data's do"
            )
        if int(self.checks) < FIRST_LOOKS:
            return None
        average_diversity, average_gap = (math.exp(value) for value in self.log_averages.tolist())
        if diversity < DIVERSITY_FACTOR * average_diversity:
            return (
                f"the generator collapsed: its pictures differ by {diversity:.2f} of what the data's do, "
                f"after {average_diversity:.2f} before"
            )
        if gap > max(LARGEST_GAP, GAP_FACTOR * average_gap):
            return (
                f"the discriminator ran away: its logits of real and fake are {gap:.3g} apart, after {average_gap:.3g}"
            )
        return None

    def check_score(self, distance: float) -> str | None:
        """A message if the Frechet distance of the EMA weights is far above the best so far, else None."""
        best, count = self.distances.tolist()
        if count >= 2 and distance > FD_FACTOR * best:
            return f"the quality fell: Frechet distance {distance:.0f} after {best:.0f}"
        best = min(best, distance) if count else distance
        self.distances.copy_(torch.tensor([best, count + 1]))
        return None

    def discard_scores(self) -> None:
        """Forget all Frechet distances, because the held-out set changed."""
        self.distances.zero_()


def mean_squared_distance(features: Tensor) -> float:
    """Mean squared distance over all pairs of (N, D) features, which is twice the sum of their variances."""
    return 2 * float(features.double().var(dim=0, unbiased=True).sum()) if len(features) > 1 else 0.0
