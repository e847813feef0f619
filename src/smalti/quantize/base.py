"""What every quantizer is and returns. Layout: (B, D, H, W) latents, (B, P, H, W) codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smalti.errors import CodeRangeError


@dataclass(frozen=True)
class Quantized:
    """The result of quantizing a batch of latents.

    Attributes:
        values: (B, D, H, W) float32, with the gradient estimator applied.
        codes: (B, P, H, W) int64, plane p in [0, alphabet[p]).
        loss: () float32, already weighted; zero for quantizers without an auxiliary loss.
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Maps latents to codes and back. `alphabet[p]` is the number of symbols in code plane p."""

    alphabet: tuple[int, ...]

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantize (B, D, H, W) latents; in training mode this may also move the codebook."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """The codes of (B, D, H, W) latents: (B, P, H, W) int64. Changes nothing."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The values of (B, P, H, W) codes: (B, D, H, W) float32.

        Raises:
            CodeRangeError: a code is outside its plane's alphabet.
        """

    def check_codes(self, codes: Tensor) -> None:
        """Refuse codes that no encoder of this quantizer can have written.

        Raises:
            CodeRangeError: wrong number of planes, or a code outside its plane's alphabet.
        """
        if codes.ndim != 4 or codes.shape[1] != len(self.alphabet):
            raise CodeRangeError(
                f"codes have the shape {tuple(codes.shape)}, but this model reads (B, {len(self.alphabet)}, H, W)"
            )
        for plane, size in enumerate(self.alphabet):
            low, high = (int(v) for v in codes[:, plane].aminmax()) if codes.numel() else (0, 0)
            if low < 0 or high >= size:
                code = low if low < 0 else high
                raise CodeRangeError(
                    f"plane {plane} holds code {code}, but its alphabet is 0..{size - 1}; "
                    "was this file written by another model?"
                )


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are used as if evenly: exp of the entropy of the counts, in nats.

    Args:
        counts: (K,) how often each code was chosen; all zero gives 1.
    """
    share = counts.float() / counts.sum().clamp_min(1)
    return torch.exp(-torch.xlogy(share, share).sum())


def count_codes(codes: Tensor, alphabet: int) -> Tensor:
    """How often each of `alphabet` codes occurs: (alphabet,) float32. Unlike bincount it never waits for a GPU."""
    flat = codes.flatten()
    return torch.zeros(alphabet, device=codes.device).index_add_(0, flat, torch.ones(len(flat), device=codes.device))
