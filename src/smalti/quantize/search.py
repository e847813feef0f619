"""Exact nearest code without the N x K matrix of distances.

    argmin_k |z - e_k|^2 = argmin_k (|e_k|^2 / 2 - z . e_k)

The right side is one matrix product for each chunk of rows; a chunk's scores fit in the processor's cache and are
thrown away before the next chunk begins. Always float32, whatever autocast says: in bf16 neighbouring codes tie.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES_CPU = 2 * 2**20  # about one core's share of the second and third level cache
CHUNK_BYTES_GPU = 256 * 2**20


@torch.no_grad()
def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook vector nearest to each row by Euclidean distance; ties go to the lowest index.

    Args:
        rows: (N, D) any floating dtype.
        codebook: (K, D), K >= 1.

    Returns:
        (N,) int64 in [0, K).
    """
    with torch.autocast(rows.device.type, enabled=False):
        vectors = codebook.float()
        half_norms = vectors.square().sum(dim=1) / 2
        budget = CHUNK_BYTES_CPU if rows.device.type == "cpu" else CHUNK_BYTES_GPU
        chunk = max(64, budget // (4 * len(vectors)))
        codes = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk].float()
            codes[start : start + chunk] = torch.addmm(half_norms, part, vectors.T, alpha=-1).argmin(dim=1)
    return codes
