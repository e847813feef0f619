"""How a tokenizer uses its codes, and what they cost.

    codes_used   = codes that occur / codes in the alphabet, over all planes
    perplexity   = exp(mean over planes p of H_p),  H_p = -sum_k q_pk ln q_pk,  q_pk the share of code k in plane p
    rate_bpp     = sum over planes and cells of log2(alphabet_p) / pixels       a fixed number of bits for each code
    entropy_bpp  = sum over planes and cells of H_p / ln 2 / pixels             an ideal coder that knows these shares

The entropy is that of the pooled histogram, of order 0: what a code tells about its neighbours is not used, and no
bit is counted for sending the shares. With n codes in a plane it comes out low by about (K - 1) / (2 n) nats, K the
codes that occur (Miller 1955); the figure's note says so where that is more than one percent.

Layout of codes: (B, P, H, W) integers, plane p in [0, alphabet[p]).

Intervals in bounded memory. Keeping the histogram of every image is too much (8,192 codes by 10,000 images), so
images go by a hash of their codes into at most 64 groups with one histogram each, and the bootstrap draws groups. A
group is a function of the image's content: neither order nor the number of processes matters, and equal images stay
together. What is drawn are the influence values of each figure (for the entropy: the mean of -ln q over a group's
codes), because a histogram that is drawn again has fewer different codes than the first, always a lower entropy, and
an interval that need not hold the estimate. Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap,
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

_COUNTERS = 2**22  # counters in all groups together, where that leaves at least a few groups
_FEWEST_GROUPS = 16
_NOTABLE_BIAS = 0.01


class CodeUsage(Metric):
    """Share of codes in use, perplexity and rates of everything a tokenizer has encoded."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        """`codebook_sizes` holds the number of codes of each plane. ConfigError for an empty one or a size under 1."""
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        if not self.codebook_sizes or min(self.codebook_sizes) < 1:
            raise ConfigError(
                f"the alphabet is {self.codebook_sizes}; it needs a positive number of codes for each plane"
            )
        self._offsets = np.concatenate(
            [[0], np.cumsum(self.codebook_sizes)]
        )  # planes lie side by side in one histogram
        self.groups = min(GROUPS, max(_FEWEST_GROUPS, _COUNTERS // int(self._offsets[-1])))
        self._counts = np.zeros((self.groups, self._offsets[-1]), np.int64)
        self._pixels = np.zeros(self.groups, np.int64)
        self._images = 0

    def update(self, codes: Tensor | np.ndarray, pixels: int) -> None:
        """Take in the codes of a batch.

        Args:
            codes: (B, P, H, W) integers, plane p in [0, alphabet[p]).
            pixels: image pixels that these codes stand for, B * height * width of the images.

        Raises:
            CodeRangeError: a code outside its plane's alphabet.
            DataError: another type or shape, or a number of pixels that B images of one size cannot have.
        """
        array = self._checked(codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes), pixels)
        images, planes = array.shape[:2]
        if images == 0:
            return
        flat = array.reshape(images, planes, -1).astype(np.int64)
        group = content_groups(flat.reshape(images, -1), self.groups)
        places = flat + self._offsets[:planes, None] + (group * self._offsets[-1])[:, None, None]
        np.add.at(self._counts.ravel(), places.ravel(), 1)
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
        codes, surprise = self._per_plane(counts)
        entropies = surprise.sum(0) / codes.sum(0)
        images, planes = self._images, len(self.codebook_sizes)

        perplexity = math.exp(entropies.mean())
        together = "geometric mean of the planes" if planes > 1 else ""
        low, high = bounds(
            np.concatenate([surprise, codes], 1),
            lambda means: np.exp((means[:, :planes] / means[:, planes:]).mean(1)),
        )
        figures = [
            self._used(counts),
            MetricValue("perplexity", perplexity, low, high, images, "higher", note=together),
        ]
        bits = {"rate_bpp": codes @ np.log2(self.codebook_sizes), "entropy_bpp": surprise.sum(1) / math.log(2)}
        notes = {
            "rate_bpp": "fixed length, nothing entropy-coded",
            "entropy_bpp": self._entropy_note(counts, entropies),
        }
        for name, cost in bits.items():
            low, high = bounds(np.stack([cost, pixels], 1), lambda means: means[:, 0] / means[:, 1])
            value = float(cost.sum() / pixels.sum())
            figures.append(MetricValue(name, value, low, high, images, "lower", "bits per pixel", notes[name]))
        return tuple(figures)

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
        """(G, codes) counts -> codes of each group and plane, and the sum of their -ln q; both (G, P) float64."""
        codes, surprise = [], []
        for start, end in zip(self._offsets[:-1], self._offsets[1:], strict=True):
            plane = counts[:, start:end]
            total = plane.sum(0)
            seen = total > 0
            codes.append(plane.sum(1).astype(np.float64))
            surprise.append(plane[:, seen] @ -np.log(total[seen] / total.sum()))
        return np.stack(codes, 1), np.stack(surprise, 1)

    def _used(self, counts: np.ndarray) -> MetricValue:
        groups_with = (counts > 0).sum(0)
        used, size = int((groups_with > 0).sum()), len(groups_with)
        # Codes that would not have been seen without the group: its influence on the number of codes in use.
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
