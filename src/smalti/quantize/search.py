"""Exact search for the nearest code, without the N x K matrix of distances and without a one-hot.

    argmin_k |z - e_k|^2 = argmax_k w_k . t (z - c) + b_k,    w_k = s t (e_k - c),  b_k = -s |t (e_k - c)|^2 / 2

for every c, s > 0 and t > 0. On a CPU the scores on the right are computed a tile at a time (some codes, some latents)
that stays in the processor's cache and is thrown away before the next one begins; on a GPU with Triton no score ever
leaves the chip (search_triton.py).

c moves a codebook that lies far from the origin towards it. s is the power of two that makes the weights about 1, so
that huge vectors do not leave float32's range, and t, nearly always 1, lifts tiny ones out of the subnormals.
Always float32, whatever autocast says: in bf16 neighbouring codes tie.

`torch.export` records the operations of one call and must not fix the number of latents. There the scores of all
latents are computed, a number of codes at a time that does not depend on the latents.

A matrix product may round differently at its edges, so that two equal vectors can have unequal scores. That is why the
answer is looked up once more: of equal vectors the first one is returned, on every machine.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.nn.export import is_exporting

SCORE_BYTES_GPU = 256 * 2**20  # without Triton
EXPORTED_CODES = 1024  # compared at once in an exported program
LATENTS_AT_ONCE = 256  # of one thread, at least: their best scores and codes so far stay in its first level cache
KEY = 0x5851F42D4C957F2D  # odd, with bits all over (Knuth's multiplier): its powers spread the channels of a vector


class LinearForm(NamedTuple):
    """score_k(z) = weights[k] . (lift * z + shift) + offsets[k], largest at the nearest code; all float32."""

    lift: Tensor  # () t, a power of two
    shift: Tensor  # (D,) -t c
    weights: Tensor  # (K, D)
    offsets: Tensor  # (K,)


@torch.no_grad()
def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook vector nearest to each row by Euclidean distance, to within float32's rounding.

    Of equal vectors the one with the lowest index is returned; so it is of vectors whose scores are equal.
    A row that is not a number, or infinite, gets some code.

    Args:
        rows: (N, D) any floating dtype, any memory layout.
        codebook: (K, D), K >= 1, finite.

    Returns:
        (N,) int64 in [0, K).
    """
    assert rows.ndim == codebook.ndim == 2
    assert rows.shape[1] == codebook.shape[1]
    assert len(codebook) > 0
    if len(codebook) == 1 or (not is_exporting() and len(rows) == 0):
        return torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        vectors = codebook.float()
        form = linear_form(vectors)
        codes = best_scores_of_any_number(rows, form) if is_exporting() else _best_scores(rows, form)
        return _first_of_equals(vectors)[codes]


@torch.no_grad()
def nearest_in_groups(rows: Tensor, codebooks: Tensor) -> Tensor:
    """`nearest` for several codebooks at once, each with rows of its own; for few rows and short vectors.

    Args:
        rows: (G, N, D) any floating dtype, any memory layout.
        codebooks: (G, K, D), K >= 1, finite.

    Returns:
        (G, N) int64 in [0, K).
    """
    if is_exporting():
        return _nearest_in_groups_of_any_number(rows, codebooks)
    groups, count, _ = rows.shape
    codes = torch.empty(groups, count, dtype=torch.int64, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        vectors = codebooks.float()
        half_norms = vectors.square().sum(dim=2) / 2
        score_bytes = _score_bytes() if rows.device.type == "cpu" else SCORE_BYTES_GPU
        # A tile has rows of as few groups as fill it, and at least some rows of one group.
        latents = min(count, max(score_bytes // (4 * vectors.shape[1]), 1))
        together = max(score_bytes // (4 * vectors.shape[1] * max(latents, 1)), 1)
        for group in range(0, groups, together):
            some = slice(group, group + together)
            for start in range(0, count, max(latents, 1)):
                part = rows[some, start : start + latents].float()
                scores = torch.baddbmm(-half_norms[some, None], part, vectors[some].transpose(1, 2))
                codes[some, start : start + latents] = scores.argmax(dim=2)
    return codes


def _nearest_in_groups_of_any_number(rows: Tensor, codebooks: Tensor) -> Tensor:
    """`nearest_in_groups` in operations that hold for every N."""
    with torch.autocast(rows.device.type, enabled=False):
        vectors = codebooks.float()
        half_norms = vectors.square().sum(dim=2) / 2
        scores = torch.baddbmm(-half_norms[:, None], rows.float(), vectors.transpose(1, 2))
        return scores.argmax(dim=2)


def linear_form(vectors: Tensor) -> LinearForm:
    """The constants of the scores of a (K, D) float32 codebook."""
    # Where all codes of a channel lie within a factor of two, subtracting one of them is exact (Sterbenz's lemma), and
    # the digits they share no longer hide their differences. Other channels stay as they are.
    low, high = vectors.aminmax(dim=0)
    centre = torch.where(high - low <= torch.minimum(low.abs(), high.abs()), low, 0.0)
    around = vectors - centre
    size = around.abs().amax().clamp_min(2.0**-149) if around.numel() else torch.ones((), device=vectors.device)
    lift = torch.where(size < 2.0**-64, 2.0**100, 1.0)
    around, size = around * lift, size * lift
    weights = around * (torch.frexp(size).mantissa / size)  # the quotient is a power of two, exactly
    return LinearForm(lift, -centre * lift, weights, (weights * around).sum(dim=1) / -2)


def _best_scores(rows: Tensor, form: LinearForm) -> Tensor:
    """(N,) the code with the largest score, by the fastest way there is on the rows' device."""
    if rows.device.type == "cuda" and importlib.util.find_spec("triton"):
        from smalti.quantize import search_triton

        if 1 <= rows.shape[1] <= search_triton.LARGEST_DIMENSION:
            return search_triton.best_scores(rows, *form)
    return best_scores_in_tiles(rows, form)


def best_scores_in_tiles(rows: Tensor, form: LinearForm) -> Tensor:
    """The code with the largest score for each of (N, D) rows, N >= 1, in pure PyTorch: (N,) int64."""
    lift, shift, weights, offsets = form
    on_cpu = rows.device.type == "cpu"
    threads = torch.get_num_threads() if on_cpu else 1
    latents, height = tile_shape(len(rows), len(weights), threads, _score_bytes() if on_cpu else SCORE_BYTES_GPU)
    scores = torch.empty(height * latents, device=rows.device)
    lifted = torch.empty(latents, rows.shape[1], device=rows.device)
    codes = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    starts = range(0, len(weights), height)
    tiles = list(zip(starts, torch.split(weights, height), torch.split(offsets[:, None], height), strict=True))
    for start in range(0, len(rows), latents):
        part = rows[start : start + latents].float()
        count = len(part)
        transposed = torch.addcmul(shift, part, lift, out=lifted[:count]).T
        best, code = scores, codes  # of the tiles so far; the first one replaces them
        for first, weight, offset in tiles:
            product = scores[: len(weight) * count].view(len(weight), count)
            # Filling the product with the offsets costs nothing: it brings the memory into the cache.
            torch.addmm(offset, weight, transposed, out=product)
            values, indices = _largest(product, threads)
            if first == 0:
                best, code = values, indices
            else:
                better = values > best  # an equal score further on does not count
                best, code = torch.where(better, values, best), torch.where(better, indices + first, code)
        codes[start : start + count] = code
    return codes


def best_scores_of_any_number(rows: Tensor, form: LinearForm) -> Tensor:
    """`best_scores_in_tiles` in operations that hold for every N: memory grows with N, but not with K."""
    lift, shift, weights, offsets = form
    transposed = torch.addcmul(shift, rows.float(), lift).T
    parts = zip(torch.split(weights, EXPORTED_CODES), torch.split(offsets[:, None], EXPORTED_CODES), strict=True)
    best, code = torch.empty(0), torch.empty(0)  # of the codes so far; the first ones replace them
    for number, (weight, offset) in enumerate(parts):
        values, indices = torch.addmm(offset, weight, transposed).max(dim=0)
        if number == 0:
            best, code = values, indices
        else:
            better = values > best  # an equal score further on does not count
            best = torch.where(better, values, best)
            code = torch.where(better, indices + number * EXPORTED_CODES, code)
    return code


def _largest(scores: Tensor, threads: int) -> tuple[Tensor, Tensor]:
    """The largest score of each latent, (L,), and the first code that has it, (L,) int64.

    Args:
        scores: (T, L), contiguous.
        threads: between how many the latents are divided.
    """
    if scores.device.type != "cpu":
        largest = scores.max(dim=0)
        return largest.values, largest.indices
    # torch.max goes through numbers one by one here. Max pooling over an image with T lines, a few columns (one for
    # each thread) and L / columns channels, as channels_last, asks the same question sixteen numbers at a time.
    height, latents = scores.shape
    columns = math.gcd(latents, threads)
    channels = latents // columns
    image = scores.as_strided((1, channels, height, columns), (height * latents, 1, latents, channels))
    values, indices = F.max_pool2d(image, (height, 1), return_indices=True)
    if columns > 1:  # an index counts along lines and columns
        indices = indices // columns
    return values.permute(0, 2, 3, 1).reshape(-1), indices.permute(0, 2, 3, 1).reshape(-1)


def tile_shape(rows: int, codes: int, threads: int, score_bytes: int) -> tuple[int, int]:
    """Numbers of latents and of codes that are compared at once, so that their scores take `score_bytes`.

    As many codes as leave every thread its `LATENTS_AT_ONCE` latents.
    """
    scores = max(score_bytes // 4, 1)
    latents = min(rows, max(scores // codes, LATENTS_AT_ONCE * threads))
    return latents, min(codes, max(scores // latents, 1))


@functools.cache
def _score_bytes() -> int:
    """Memory for scores: twice the second level cache, which the third level holds; 2 MiB where it is unknown."""
    sizes = {"K": 2**10, "M": 2**20}
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        second_level = int(text[:-1]) * sizes[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):  # not Linux, or a container that does not say
        second_level = 2**20
    return min(max(2 * second_level, 2**20), 16 * 2**20)


def _first_of_equals(vectors: Tensor) -> Tensor:
    """For each of K vectors the lowest index of an equal vector, (K,) int64."""
    count, dimension = vectors.shape
    # Equal vectors have equal keys, whatever the order of the sum: integers wrap around. Adding 0 makes -0 a 0.
    powers = torch.full((dimension,), KEY, device=vectors.device).cumprod(dim=0)
    keys = ((vectors + 0.0).contiguous().view(torch.int32) * powers).sum(dim=1)
    ordered = keys.sort(stable=True)
    begins = F.pad(ordered.values[1:] != ordered.values[:-1], (1, 0), value=True)
    positions = torch.arange(count, device=vectors.device)
    start = torch.where(begins, positions, 0).cummax(dim=0).values  # where each one's group of equal keys begins
    first = torch.empty_like(positions).scatter_(0, ordered.indices, ordered.indices[start])
    return torch.where((vectors[first] == vectors).all(dim=1), first, positions)  # keys can agree by chance
