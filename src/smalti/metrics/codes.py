"""Codebook usage of a tokenizer, and the bit rate of its codes.

    codes_used   = codes that occur / codebook size, over all planes
    perplexity   = exp(mean over planes p of H_p),  H_p = -sum_k q_pk ln q_pk,  q_pk the frequency of code k in plane p
    rate_bpp     = sum over planes and positions of log2(size_p) / pixels       fixed-length code
    entropy_bpp  = sum over planes and positions of H_p / ln 2 / pixels         ideal coder that knows the frequencies

The entropy is the order-0 entropy of the pooled histogram: it ignores dependence between neighbouring codes and the
cost of sending the frequencies. With n codes in a plane, K of them distinct, it is biased downwards by about
(K - 1) / (2 n) nats (Miller 1955); the note of the metric value says so if the bias exceeds one percent.

Layout of codes: (B, P, H, W) integers, plane p in [0, codebook_sizes[p]).

Confidence intervals in bounded memory: one histogram per image would be too large (8,192 codes by 10,000 images), so
images are assigned by a hash of their codes to at most 64 groups with one histogram each, and the bootstrap resamples
groups. A group depends on the content of an image only, not on the order or the number of processes, and equal images
share a group. The bootstrap resamples the influence values of each metric (for the entropy, the mean of -ln q over the
codes of a group): a resampled histogram has fewer distinct codes than the original and therefore a lower entropy, so
its interval might not contain the estimate. Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap,
sections 11.5 and 22.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from smalti.errors import CodeRangeError, ConfigError, DataError
from smalti.metrics.distortion import check_not_empty, check_same_kind
from smalti.metrics.groups import GROUPS, bounds, content_groups
from smalti.metrics.metric import Metric, MetricValue

_COUNTERS = 2**22  # histogram bins over all groups together, unless that leaves too few groups
_FEWEST_GROUPS = 16
_NOTABLE_BIAS = 0.01


class CodeUsage(Metric):
    """Codebook usage, perplexity and bit rate over everything that a tokenizer has encoded."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """
        Args:
            codebook_sizes: number of codes of each plane.

        Raises:
            ConfigError: no planes, or a size below 1.
        """
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        if not self.codebook_sizes or min(self.codebook_sizes) < 1:
            raise ConfigError(
                f"the alphabet is {self.codebook_sizes}; it needs a positive number of codes for each plane"
            )
        # One histogram holds the planes one after the other.
        self._offsets = np.concatenate([[0], np.cumsum(self.codebook_sizes)])
        self.groups = min(GROUPS, max(_FEWEST_GROUPS, _COUNTERS // int(self._offsets[-1])))
        self._counts = np.zeros((self.groups, self._offsets[-1]), np.int64)
        self._pixels = np.zeros(self.groups, np.int64)
        self._images = 0

    def update(self, codes: Tensor | np.ndarray, pixels: int) -> None:
        """Add the codes of a batch of images.

        Args:
            codes: (B, P, H, W) integers, plane p in [0, codebook_sizes[p]).
            pixels: total number of pixels of these images, B * height * width.

        Raises:
            CodeRangeError: a code is outside the codebook of its plane.
            DataError: wrong type or shape, or a number of pixels that B images of one size cannot have.
        """
        array = self._checked(codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes), pixels)
        images, planes = array.shape[:2]
        if images == 0:
            return
        flat = array.reshape(images, planes, -1).astype(np.int64)
        group = content_groups(flat.reshape(images, -1), self.groups)
        bins = flat + self._offsets[:planes, None] + (group * self._offsets[-1])[:, None, None]
        np.add.at(self._counts.ravel(), bins.ravel(), 1)
        self._pixels += np.bincount(group, minlength=self.groups) * (pixels // images)
        self._images += images

    def merge(self, other: CodeUsage) -> None:
        check_same_kind(self, other)
        if self.codebook_sizes != other.codebook_sizes:
            raise ConfigError(
                f"codes of the alphabets {self.codebook_sizes} and {other.codebook_sizes} cannot be merged"
            )
        self._counts += other._counts
        self._pixels += other._pixels
        self._images += other._images

    def compute(self) -> tuple[MetricValue, ...]:
        check_not_empty(self._images, "code usage")
        filled = self._pixels > 0
        counts, pixels = self._counts[filled], self._pixels[filled].astype(np.float64)
        codes, surprisal = self._per_plane(counts)
        entropies = surprisal.sum(0) / codes.sum(0)
        images, planes = self._images, len(self.codebook_sizes)

        perplexity = math.exp(entropies.mean())
        together = "geometric mean of the planes" if planes > 1 else ""
        low, high = bounds(
            np.concatenate([surprisal, codes], 1),
            lambda means: np.exp((means[:, :planes] / means[:, planes:]).mean(1)),
        )
        values = [
            self._used(counts),
            MetricValue("perplexity", perplexity, low, high, images, "higher", note=together),
        ]
        bits = {"rate_bpp": codes @ np.log2(self.codebook_sizes), "entropy_bpp": surprisal.sum(1) / math.log(2)}
        notes = {
            "rate_bpp": "fixed length, nothing entropy-coded",
            "entropy_bpp": self._entropy_note(counts, entropies),
        }
        for name, cost in bits.items():
            low, high = bounds(np.stack([cost, pixels], 1), lambda means: means[:, 0] / means[:, 1])
            value = float(cost.sum() / pixels.sum())
            values.append(MetricValue(name, value, low, high, images, "lower", "bits per pixel", notes[name]))
        return tuple(values)

    def _checked(self, codes: np.ndarray, pixels: int) -> np.ndarray:
        if codes.dtype.kind not in "iu":
            raise DataError(f"codes are {codes.dtype}, but must be integers")
        if codes.ndim != 4 or codes.shape[1] != len(self.codebook_sizes) or 0 in codes.shape[2:]:
            raise DataError(
                f"codes have shape {codes.shape}; expected (images, {len(self.codebook_sizes)}, height, width), "
                "one plane for each size of the alphabet"
            )
        images = len(codes)
        if images and (pixels < images or pixels % images):
            raise DataError(
                f"{pixels} pixels cannot be those of {images} images of one size; give images x height x width"
            )
        for plane, size in enumerate(self.codebook_sizes if images else ()):
            lowest, highest = int(codes[:, plane].min()), int(codes[:, plane].max())
            if lowest < 0 or highest >= size:
                raise CodeRangeError(
                    f"plane {plane} holds code {lowest if lowest < 0 else highest}, but its alphabet is 0..{size - 1}; "
                    "are these codes of another model?"
                )
        return codes

    def _per_plane(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(G, codes) counts -> number of codes per group and plane, and the sum of -ln q over them; (G, P) float64."""
        codes, surprisal = [], []
        for start, end in zip(self._offsets[:-1], self._offsets[1:], strict=True):
            plane = counts[:, start:end]
            total = plane.sum(0)
            seen = total > 0
            codes.append(plane.sum(1).astype(np.float64))
            surprisal.append(plane[:, seen] @ -np.log(total[seen] / total.sum()))
        return np.stack(codes, 1), np.stack(surprisal, 1)

    def _used(self, counts: np.ndarray) -> MetricValue:
        groups_with = (counts > 0).sum(0)
        used, size = int((groups_with > 0).sum()), len(groups_with)
        # The codes that occur in one group only determine its influence on the number of codes in use.
        alone = (counts[:, groups_with == 1] > 0).sum(1).astype(np.float64)
        influence = (len(counts) - 1) * (alone - alone.mean())
        low, high = bounds(influence, lambda means: np.clip((used + means) / size, 1 / size, 1))
        return MetricValue("codes_used", used / size, low, high, self._images, "higher")

    def _entropy_note(self, counts: np.ndarray, entropies: np.ndarray) -> str:
        note = "order 0, of these images' own histogram"
        totals = counts.sum(0)
        planes = [totals[start:end] for start, end in zip(self._offsets[:-1], self._offsets[1:], strict=True)]
        bias = sum(((plane > 0).sum() - 1) / (2 * plane.sum()) for plane in planes)
        if bias > _NOTABLE_BIAS * entropies.sum():
            note += f"; low by about {bias / entropies.sum():.0%}, as there are few codes to count"
        return note
