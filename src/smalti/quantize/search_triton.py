"""A kernel for the nearest code on a GPU, which keeps only the best score so far.

    score_k(z) = w_k . (lift * z + shift) + b_k,     code(z) = the first k with the largest score

Each program holds BLOCK_ROWS latents, walks over the codebook BLOCK_CODES vectors at a time, and keeps the largest
score and its code in registers: N x K scores are computed and none is stored (compare the online maximum of
FlashAttention, arXiv:2205.14135). Products are true float32, never TF32.

Importing this file needs Triton; `search.py` does it for latents on a GPU, where Triton is installed.
Checked in Triton's interpreter on a CPU only: it has not yet run on a GPU, and its tiles are not yet tuned.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

LARGEST_DIMENSION = 256  # beyond, a tile's latents and codes no longer fit on the chip


def best_scores(rows: Tensor, lift: Tensor, shift: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """The code with the largest score, for each row.

    Args:
        rows: (N, D) any floating dtype, any memory layout; N >= 1 and 1 <= D <= LARGEST_DIMENSION.
        lift: () float32.
        shift: (D,) float32.
        weights: (K, D) float32, K >= 1.
        offsets: (K,) float32.

    Returns:
        (N,) int64 in [0, K).
    """
    count, dimension = rows.shape
    assert count >= 1
    assert 1 <= dimension <= LARGEST_DIMENSION
    assert all(tensor.is_contiguous() for tensor in (shift, weights, offsets))
    codes = torch.empty(count, dtype=torch.int64, device=rows.device)
    block_dimension, block_rows, block_codes = tile_shape(dimension)
    grid = (triton.cdiv(count, block_rows),)
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call,unused-ignore]
        _best_scores[grid](
            rows, lift, shift, weights, offsets, codes, count, len(weights), rows.stride(0), rows.stride(1),
            D=dimension, BLOCK_D=block_dimension, BLOCK_ROWS=block_rows, BLOCK_CODES=block_codes,
        )  # fmt: skip
    return codes


def tile_shape(dimension: int) -> tuple[int, int, int]:
    """BLOCK_D, BLOCK_ROWS and BLOCK_CODES: the tile of scores and both its factors have to fit on the chip."""
    block_dimension = max(16, triton.next_power_of_2(dimension))  # tl.dot takes no less
    if block_dimension <= 64:
        return block_dimension, 64, 64
    return block_dimension, 32, 64 if block_dimension <= 128 else 32


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _best_scores(  # type: ignore[no-untyped-def]
    rows,
    lift,
    shift,
    weights,
    offsets,
    codes,
    row_count,
    code_count,
    row_stride,
    channel_stride,
    D: tl.constexpr,  # noqa: N803
    BLOCK_D: tl.constexpr,  # noqa: N803
    BLOCK_ROWS: tl.constexpr,  # noqa: N803
    BLOCK_CODES: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_D)
    inside = (row < row_count)[:, None] & (channel < D)[None, :]
    z = tl.load(rows + row[:, None] * row_stride + channel[None, :] * channel_stride, mask=inside, other=0.0)
    z = z.to(tl.float32) * tl.load(lift) + tl.load(shift + channel, mask=channel < D, other=0.0)[None, :]
    z = tl.where(tl.abs(z) < float("inf"), z, 0.0)  # what is not a number would make every score so
    best = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    code = tl.zeros((BLOCK_ROWS,), tl.int64)
    for first in range(0, code_count, BLOCK_CODES):
        k = first + tl.arange(0, BLOCK_CODES).to(tl.int64)
        inside = (k < code_count)[None, :] & (channel < D)[:, None]
        w = tl.load(weights + k[None, :] * D + channel[:, None], mask=inside, other=0.0)
        # Codes past the end score -inf, and nothing is better than the best by being -inf or not a number.
        b = tl.load(offsets + k, mask=k < code_count, other=float("-inf"))
        scores = tl.dot(z, w, input_precision="ieee") + b[None, :]
        value, index = tl.max(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
        better = value > best  # an equal score further on does not count
        best = tl.where(better, value, best)
        code = tl.where(better, first + index, code)
    tl.store(codes + row, code, mask=row < row_count)
