"""Tuning of the decoder for one picture: changes of a few biases, stored in its file.

The biases of the decoder's first and last convolution are trained for some steps on the picture itself, with its codes
fixed, and their changes are stored as signed bytes in units of 1/64, deflated: about as many bytes as there are
channels. They are kept only if they are worth their bytes at the picture's own exchange rate of error and bits.
Source: overfitting the decoder to the content, van Rozendaal et al. 2021, arXiv:2101.08687; here of biases alone.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from smalti.codec.image_codec import CodecEngine
from smalti.errors import CodecError
from smalti.models.codec.codec import step_size

UNIT = 1 / 64
LEARNING_RATE = 0.01
CROP = 512  # pixels a side of the part that is trained on


def tune_decoder(engine: CodecEngine, pixels: np.ndarray, codes: np.ndarray, quality: int, *, steps: int) -> bytes:
    """Train the changes for a picture.

    Args:
        pixels: (H, W, C) uint8 or uint16, with the model's channels.
        codes: (D, h, w) int32 of the picture.
        steps: of Adam.

    Returns:
        The changes as bytes; empty if they are not worth it.
    """
    module, tile = engine.module, engine.tile
    rows, columns = (min(CROP // tile, side) or 1 for side in codes.shape[1:])
    top, left = (codes.shape[1] - rows) // 2, (codes.shape[2] - columns) // 2
    # Padded like the codes before it is cut.
    whole = engine.tensor(pixels[None])
    wanted = whole[:, :, top * tile : (top + rows) * tile, left * tile : (left + columns) * tile]
    part = torch.from_numpy(codes[None, :, top : top + rows, left : left + columns]).float().to(engine.device)
    level = torch.full((1,), float(quality), device=engine.device)
    tuning = torch.zeros(module.refiner.tunable, device=engine.device, requires_grad=True)
    optimizer = torch.optim.Adam([tuning], LEARNING_RATE)

    def error(changes: Tensor | None) -> Tensor:
        return (module.decode(part, level, tuning=changes).clamp(-1, 1) - wanted).square().sum()

    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            error(tuning).backward()
            optimizer.step()
    levels = np.clip(np.rint(tuning.detach().cpu().numpy() / UNIT), -127, 127).astype(np.int8)
    data = _packed(levels)
    with torch.no_grad():
        gain = float(error(None) - error(read_tuning(engine, data)))
    share = part.shape[2] * part.shape[3] / (codes.shape[1] * codes.shape[2])
    price = engine.rate_weight * float(step_size(level).square()) * 8 * (len(data) + 8)
    return data if gain / share > price else b""


def read_tuning(engine: CodecEngine, data: bytes) -> Tensor:
    """The changes from their bytes: (tunable,) float32.

    Raises:
        CodecError: the bytes are damaged.
    """
    count = engine.module.refiner.tunable
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(data, count + 1)
    except zlib.error:
        raw = b""
    if len(raw) != count or not unpacker.eof or unpacker.unused_data:
        raise CodecError(f"the decoder's changes do not unpack to {count} values; the file is damaged, get it again")
    return torch.from_numpy(np.frombuffer(raw, np.int8).astype(np.float32) * UNIT).to(engine.device)


def _packed(levels: np.ndarray) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(levels.tobytes()) + packer.flush()
