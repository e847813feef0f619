"""What every quantizer is and returns. Layout: (B, D, H, W) latents, (B, P, H, W) codes.

A quantizer works on rows, the N = B*H*W latents of D numbers each; the base class turns grids into rows and back,
switches autocast off, and sees to it that a number that is not finite never becomes code 0 in silence:

    training     the loss becomes NaN, on every device and without waiting for it, so that the training loop can stop
                 or go back with all its ranks together
    evaluation   `encode`, and on the CPU `forward`, raise NonFiniteError
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smalti.errors import CodeRangeError, ConfigError, NonFiniteError


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
    """Maps latents to codes and back.

    Attributes:
        dimension: D, the channels of the latents.
        codebook_sizes: the number of symbols in each code plane.
        stage: number of the stage in a residual quantizer; what is drawn depends on it.
    """

    dimension: int
    codebook_sizes: tuple[int, ...]
    stage: int = 0

    @property
    def codes_in_latent_space(self) -> bool:
        """Whether codes lie where the latents are, so that the sizes of the two can be compared."""
        return False

    def forward(self, z: Tensor) -> Quantized:
        """Quantize (B, D, H, W) latents; in training mode this may also move the codebook.

        Raises:
            ConfigError: the latents have another number of channels.
            NonFiniteError: in eval mode on the CPU, latents that are NaN or infinite.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            if not self.training and z.device.type == "cpu":
                _check_finite(rows)
            bounded = self.bound_rows(rows)
            values, codes, loss = self.quantize_rows(bounded, committed=bounded, examples=len(z))
            # Zero, or NaN where a latent is NaN or infinite.
            loss = loss + rows.detach().sum() * 0
        return Quantized(_grid(values, z), _grid(codes, z).contiguous(), loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """The codes of (B, D, H, W) latents: (B, P, H, W) int64. Changes nothing.

        Raises:
            ConfigError: the latents have another number of channels.
            NonFiniteError: latents that are NaN or infinite.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            _check_finite(rows)
            codes = self.encode_rows(self.bound_rows(rows))
        return _grid(codes, z).contiguous()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The values of (B, P, H, W) codes: (B, D, H, W) float32.

        Raises:
            CodeRangeError: a code is outside its plane's alphabet.
        """
        self.check_codes(codes)
        return self._decode(codes)

    @torch.no_grad()
    def fit(self, z: Tensor, *, latents_per_step: int) -> None:
        """Place the codes for some latents before the first training step, where a quantizer has codes to place.

        Args:
            z: (B, D, H, W), many more latents than codes; the same ones on every rank.
            latents_per_step: how many latents a training step will bring, over all ranks.

        Raises:
            ConfigError: another number of channels, or fewer latents than codes.
        """
        with torch.autocast(z.device.type, enabled=False):
            self.fit_rows(self.bound_rows(self._rows(z)), latents_per_step=latents_per_step)

    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        """`fit` for (N, D) bounded rows; nothing where no codes are placed by data."""

    def bound_rows(self, rows: Tensor) -> Tensor:
        """(N, D) latents moved to where the codes are, for quantizers whose codes have fixed places."""
        return rows

    @abstractmethod
    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: int) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize bounded rows.

        Args:
            rows: (N, D) float32, the rows of the first example first.
            committed: the same numbers with the gradient that the commitment term has; a residual stage's differs.
            examples: how many examples the rows come from.

        Returns:
            (N, D) values, (N, P) codes, () loss.
        """

    @abstractmethod
    def encode_rows(self, rows: Tensor) -> Tensor:
        """(N, D) bounded rows -> (N, P) codes."""

    @abstractmethod
    def decode_rows(self, codes: Tensor) -> Tensor:
        """(N, P) codes -> (N, D) values."""

    def residual_scale(self) -> Tensor | float:
        """How much smaller the rows are once their values are taken away, where the codes have fixed places."""
        return 1.0

    def check_codes(self, codes: Tensor, planes: int | None = None) -> None:
        """Refuse codes that no encoder of this quantizer can have written.

        Args:
            planes: expect the first so many planes alone.

        Raises:
            CodeRangeError: wrong number of planes, or a code outside its plane's alphabet.
        """
        codebook_sizes = self.codebook_sizes[:planes]
        if codes.ndim != 4 or codes.shape[1] != len(codebook_sizes):
            raise CodeRangeError(
                f"codes have the shape {tuple(codes.shape)}, but this model reads (B, {len(codebook_sizes)}, H, W)"
            )
        for plane, size in enumerate(codebook_sizes):
            low, high = (int(v) for v in codes[:, plane].aminmax()) if codes.numel() else (0, 0)
            if low < 0 or high >= size:
                code = low if low < 0 else high
                raise CodeRangeError(
                    f"plane {plane} holds code {code}, but its alphabet is 0..{size - 1}; "
                    "was this file written by another model?"
                )

    def _decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            return _grid(self.decode_rows(codes.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])), codes)

    def _rows(self, z: Tensor) -> Tensor:
        """(B, D, H, W) -> (B*H*W, D) float32; a view where the memory is channels_last."""
        if z.ndim != 4 or z.shape[1] != self.dimension:
            found = f"{z.shape[1]} channels" if z.ndim == 4 else f"the shape {tuple(z.shape)}"
            raise ConfigError(
                f"latents have {found}, but this quantizer takes {self.dimension} channels: (B, {self.dimension}, H, W)"
            )
        return z.float().permute(0, 2, 3, 1).reshape(-1, self.dimension)


class CountedQuantizer(Quantizer):
    """A quantizer that counts its training steps, for what it does in the first one and for what it draws.

    Draws depend on the number of the step alone, so that a resumed training needs no random state.
    """

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # training batches so far
        self._step: int | None = None  # the same on the host, so that a GPU is asked once; None: ask
        self.register_load_state_dict_post_hook(_forget_step)

    def step_number(self) -> int:
        """Training batches so far."""
        if self._step is None:
            self._step = int(self.steps)
        return self._step

    def count_step(self) -> None:
        """One training batch more."""
        self._step = self.step_number() + 1
        self.steps += 1


def _forget_step(module: nn.Module, _keys: object) -> None:
    module._step = None  # type: ignore[assignment]


def _check_finite(rows: Tensor) -> None:
    # A finite sum has only finite terms, and takes no memory; an infinite one may just be large terms.
    if bool(torch.isfinite(rows.sum())):
        return
    wrong = int((~torch.isfinite(rows)).sum())
    if wrong:
        raise NonFiniteError(
            f"latents hold {wrong:,} values that are not finite (NaN or infinity) of {rows.numel():,}; check the "
            "pixels and the encoder's weights, or lower the learning rate it was trained with"
        )


def _grid(rows: Tensor, like: Tensor) -> Tensor:
    """(B*H*W, C) -> (B, C, H, W), with the B, H, W of another grid; no copy."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are used as if evenly: exp of the entropy of the counts, in nats.

    Args:
        counts: (K,) how often each code was chosen; all zero gives 1.
    """
    share = counts.float() / counts.sum().clamp_min(1)
    return torch.exp(-torch.xlogy(share, share).sum())


def count_codes(codes: Tensor, size: int) -> Tensor:
    """How often each of `size` codes occurs: (size,) float32. Unlike bincount it never waits for a GPU."""
    flat = codes.flatten()
    return torch.zeros(size, device=codes.device).index_add_(0, flat, torch.ones(len(flat), device=codes.device))
