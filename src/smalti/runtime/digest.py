"""SHA-256 digests of tensors, which identify weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_digest(tensors: Mapping[str, Tensor], *, header: bytes = b"") -> str:
    """SHA-256 over a header and each tensor's name, dtype, shape and bytes, sorted by name; hexadecimal."""
    sha = hashlib.sha256(header)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
