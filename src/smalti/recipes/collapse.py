"""What tells a GAN that trains from one that has collapsed or run away.

    spread  mean over pairs of |phi(a) - phi(b)|^2, of pictures of the same few latents; over that of data
    gap     mean |D(real) - D(fake)| over the last 500 images or so

phi are the features of smalti-vit, which comes with smalti. At every look they are compared with what this training
had before, as running means of logarithms over about ten looks, because what is usual depends on the loss:

    the generator collapsed      the spread is less than a quarter of what it was, or after 50,000 images and 500 steps
                                 not yet a fiftieth of the data's
    the generator ran away       its pixels lie beyond twice the range of data
    the discriminator ran away   the gap is fifteen times what it was, and more than fifteen
    the quality fell             FD of the averaged weights is twice the best so far, and was measured twice before

All of it is saved with the training, so that a resumed one is judged like one that never stopped.
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
SMOOTHING = 0.9  # of the running means, a look
FIRST_LOOKS = 3  # before anything counts as usual
LEAST_SPREAD = 0.25  # of what it was
BEGUN_SPREAD = 0.02  # less has not begun to differ, or batch normalisation has no statistics yet: it says nothing
# By so many images and steps they must have begun to differ; dcgan does within 20,000 images at a third of its rate.
LATEST_BEGIN, LATEST_STEPS = 50_000, 500
LARGEST_PIXEL = 2.0  # mean absolute value; data has 1 at most
LARGEST_GAP, GAP_FACTOR = 15.0, 15.0
QUALITY_FACTOR = 2.0


class CollapseMonitor(TrainingState):
    """Figures of a training and what was usual for them.

    Attributes:
        data_spread: of one batch of data.
    """

    data_spread: Tensor
    gap: Tensor
    usual: Tensor
    looks: Tensor
    seen: Tensor
    distances: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__(
            data_spread=torch.zeros(()),
            gap=torch.zeros(()),
            usual=torch.zeros(2),  # logarithms, of the spread and the gap
            looks=torch.zeros((), dtype=torch.int64),
            seen=torch.zeros((), dtype=torch.int64),  # images
            distances=torch.zeros(2),  # the best Frechet distance so far, and how many there were
        )
        self._device, self._batch = device, 1
        self._extractor: Extractor | None = None

    def features(self, pixels: np.ndarray) -> Tensor:
        """(N, H, W, C) uint8 -> (N, D) float32 on the CPU."""
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
        """Take the spread of data, from images that are the same on every rank."""
        self.data_spread.fill_(mean_squared_distance(self.features(pixels)))

    def observe_logits(self, real: Tensor, fake: Tensor, batch: int) -> Tensor:
        """Take in the logits of a step, (B,) on each rank; returns the gap by now."""
        gap = all_reduce_sum((real - fake).abs().mean()) / world()
        self.seen += batch
        self._batch = batch
        self.gap.lerp_(gap.to(self.gap.dtype), 1 - 0.5 ** (batch / GAP_HALF_LIFE))
        return self.gap.clone()

    def diagnostics(
        self, images: Tensor, pixels: np.ndarray, *, remember: bool = True
    ) -> tuple[dict[str, float], str | None]:
        """Look at pictures of the latents that are always the same.

        Args:
            images: (N, C, H, W) as the generator makes them; pixels: the same as (N, H, W, C) uint8.
            remember: whether this look counts for what is usual.

        Returns:
            Figures to log, and what went wrong, with the figures that say so, or None.
        """
        share = mean_squared_distance(self.features(pixels)) / max(float(self.data_spread), 1e-12)
        brightness, gap = float(images.abs().mean()), float(self.gap)
        problem = self._problem(share, brightness, gap)
        if problem is None and share >= BEGUN_SPREAD and remember:
            now = torch.tensor([math.log(max(share, 1e-6)), math.log(max(gap, 1e-6))])
            weight = max(1 - SMOOTHING, 1 / (int(self.looks) + 1))
            self.usual.lerp_(now.to(self.usual.device), weight)
            self.looks += 1
        return {"diversity": round(share, 4)}, problem

    def _problem(self, share: float, brightness: float, gap: float) -> str | None:
        if not math.isfinite(brightness) or brightness > LARGEST_PIXEL:
            return f"the generator ran away: its pixels are {brightness:.3g} large on average, where data has 1 at most"
        late = int(self.seen) >= max(LATEST_BEGIN, LATEST_STEPS * self._batch)
        if int(self.looks) == 0 and late and share < BEGUN_SPREAD:
            return (
                f"the generator collapsed: after {int(self.seen):,} images its pictures still differ by {share:.3f} of "
                "what the data's do"
            )
        if int(self.looks) < FIRST_LOOKS:
            return None
        usual_share, usual_gap = (math.exp(value) for value in self.usual.tolist())
        if share < LEAST_SPREAD * usual_share:
            return (
                f"the generator collapsed: its pictures differ by {share:.2f} of what the data's do, "
                f"after {usual_share:.2f} before"
            )
        if gap > max(LARGEST_GAP, GAP_FACTOR * usual_gap):
            return f"the discriminator ran away: its logits of real and fake are {gap:.3g} apart, after {usual_gap:.3g}"
        return None

    def check_score(self, distance: float) -> str | None:
        """Whether a Frechet distance of the averaged weights is no worse than what was reached; None if so."""
        best, count = self.distances.tolist()
        if count >= 2 and distance > QUALITY_FACTOR * best:
            return f"the quality fell: Frechet distance {distance:.0f} after {best:.0f}"
        best = min(best, distance) if count else distance
        self.distances.copy_(torch.tensor([best, count + 1]))
        return None

    def discard_scores(self) -> None:
        """Judge from here on as if nothing had been measured."""
        self.distances.zero_()


def mean_squared_distance(features: Tensor) -> float:
    """Mean squared distance over all pairs of (N, D) features: twice the sum of their variances."""
    return 2 * float(features.double().var(dim=0, unbiased=True).sum()) if len(features) > 1 else 0.0
