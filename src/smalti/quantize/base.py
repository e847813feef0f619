"""Base classes of the quantizers.

A quantizer works on rows, the N latents of a batch of D numbers each; the base class turns grids into rows and back,
leaves out what a mask excludes, switches autocast off, and sees to it that a number that is not finite never becomes
code 0 in silence:

    forward     the loss is NaN, on every device and without waiting for it, so that a training loop can stop or go
                back with all its ranks together
    encode      raises NonFiniteError

Layout: (B, D, *grid) latents and (B, P, *grid) codes, where the grid has any number of axes, none included; with
`channel_last` (B, *grid, D) and (B, *grid, P).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smalti.errors import CodeRangeError, ConfigError, NonFiniteError
from smalti.quantize.examples import Examples


class Quantized(NamedTuple):
    """The result of quantizing a batch of latents: `values, codes, loss = quantizer(z)`.

    Attributes:
        values: (B, D, *grid) float32, with the gradient estimator applied; zero where a mask is false.
        codes: (B, P, *grid) int64, plane p in [0, alphabet[p]); zero where a mask is false.
        loss: () float32, already weighted; zero for quantizers without an auxiliary loss.
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


# Without a name `torch.export.save` refuses a program that returns one; torch has no public function for it.
torch.utils._pytree._register_namedtuple(Quantized, serialized_type_name="smalti.quantize.Quantized")


class Quantizer(nn.Module, ABC):
    """Maps latents to codes and back.

    Args:
        channel_last: latents are (B, *grid, D) and codes (B, *grid, P), in place of (B, D, *grid) and (B, P, *grid).

    Attributes:
        dimension: D, the channels of the latents.
        codebook_sizes: the number of symbols in each code plane.
        stage: number of the stage in a residual quantizer; what is sampled depends on it.
        is_frozen: whether `freeze` was called; not part of the state.
    """

    dimension: int
    codebook_sizes: tuple[int, ...]
    stage: int = 0

    def __init__(self, *, channel_last: bool = False) -> None:
        super().__init__()
        self.channel_last = channel_last
        self.is_frozen = False
        self._held: frozenset[str] = frozenset()  # the parameters that `freeze` took the gradient from

    @property
    def codes_in_latent_space(self) -> bool:
        """Whether codes lie where the latents are, so that the sizes of the two can be compared."""
        return False

    @property
    def learning(self) -> bool:
        """Whether `forward` changes the codebook and its statistics: in training mode, unless frozen."""
        return self.training and not self.is_frozen

    def freeze(self) -> None:
        """Keep the codebook, its statistics and all parameters as they are, in training mode too.

        A frozen quantizer quantizes as in evaluation; its loss still pulls the latents towards their codes.
        """
        if not self.is_frozen:
            self._held = frozenset(name for name, tensor in self.named_parameters() if tensor.requires_grad)
        for module in self.modules():
            if isinstance(module, Quantizer):
                module.is_frozen = True
        for parameter in self.parameters():
            parameter.requires_grad_(False).grad = None

    def unfreeze(self) -> None:
        """Undo `freeze`; parameters that had no gradient before it have none afterwards."""
        for module in self.modules():
            if isinstance(module, Quantizer):
                module.is_frozen = False
        for name, parameter in self.named_parameters():
            if name in self._held:
                parameter.requires_grad_(True)

    def forward(self, z: Tensor, *, mask: Tensor | None = None) -> Quantized:
        """Quantize latents; in training mode this may also move the codebook. Reads no values.

        Args:
            z: (B, D, *grid) of any floating dtype.
            mask: (B, *grid) bool, false where a latent is padding. There values and codes are zero, no gradient
                passes, and neither the loss nor the codebook depends on the latent. Where several ranks train
                together, all give a mask or none does.

        Raises:
            ConfigError: the latents have another number of channels, or the mask another shape.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            if mask is None:
                examples = Examples.equal(z.shape[0], rows.shape[0])
                values, codes, loss = self._quantized(rows, examples)
            else:
                values, codes, loss = self._masked(rows, self._kept(mask, z))
        return Quantized(self._grid(values, z), self._grid(codes, z).contiguous(), loss)

    @torch.no_grad()
    def encode(self, z: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The codes of latents. Changes nothing.

        Args:
            z: (B, D, *grid) of any floating dtype.
            mask: (B, *grid) bool, false where a latent is padding; its codes are 0, whatever it is.

        Returns:
            (B, P, *grid) int64.

        Raises:
            ConfigError: the latents have another number of channels, or the mask another shape.
            NonFiniteError: latents that are NaN or infinite, where the mask is true.
        """
        self.check_finite(z, mask=mask)
        return self.codes_of(z, mask=mask)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The values of (B, P, *grid) codes: (B, D, *grid) float32. Codes 0 of padding are decoded like any others.

        Raises:
            CodeRangeError: a code is outside its plane's alphabet.
        """
        self.check_codes(codes)
        return self.values_of(codes)

    @torch.no_grad()
    def codes_of(self, z: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """`encode` without reading values, for `torch.export`: latents that are not finite get some code."""
        with torch.autocast(z.device.type, enabled=False):
            codes = self.encode_rows(self.bound_rows(self._rows(z)))
            if mask is not None:
                codes = codes.masked_fill(~self._kept(mask, z).flatten()[:, None], 0)
        return self._grid(codes, z).contiguous()

    @torch.no_grad()
    def values_of(self, codes: Tensor) -> Tensor:
        """`decode` without reading values, for `torch.export`: codes outside the alphabet are not noticed."""
        with torch.autocast(codes.device.type, enabled=False):
            rows = codes.movedim(self._channel_axis(codes), -1).reshape(-1, codes.shape[self._channel_axis(codes)])
            return self._grid(self.decode_rows(rows), codes)

    @torch.no_grad()
    def fit(self, z: Tensor, *, latents_per_step: int, mask: Tensor | None = None) -> None:
        """Place the codes for some latents before the first training step, where a quantizer has codes to place.

        Args:
            z: (B, D, *grid), many more latents than codes; the same ones on every rank.
            latents_per_step: how many latents a training step will bring, over all ranks.
            mask: (B, *grid) bool, false where a latent is padding.

        Raises:
            ConfigError: another number of channels, fewer latents than codes, or the quantizer is frozen.
        """
        if self.is_frozen:
            raise ConfigError("a frozen quantizer cannot be fitted; call unfreeze() first")
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            if mask is not None:
                rows = rows[self._kept(mask, z).flatten()]
            self.fit_rows(self.bound_rows(rows), latents_per_step=latents_per_step)

    def fit_rows(self, rows: Tensor, *, latents_per_step: int) -> None:
        """`fit` for (N, D) bounded rows; nothing where no codes are placed by data."""

    def bound_rows(self, rows: Tensor) -> Tensor:
        """(N, D) latents moved to where the codes are, for quantizers whose codes have fixed positions."""
        return rows

    def bounded(self, z: Tensor) -> Tensor:
        """`bound_rows` of latents on a grid, with gradients: (B, D, *grid) -> the same shape, float32.

        Raises:
            ConfigError: the latents have another number of channels.
        """
        with torch.autocast(z.device.type, enabled=False):
            return self._grid(self.bound_rows(self._rows(z)), z)

    @abstractmethod
    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize bounded rows.

        Args:
            rows: (N, D) float32.
            committed: the same numbers with the gradient that the commitment term has; a residual stage's differs.
            examples: the origin of the rows. With several ranks N may be 0 on some of them.

        Returns:
            (N, D) values, (N, P) codes, () loss: the mean over the rows of this rank.
        """

    @abstractmethod
    def encode_rows(self, rows: Tensor) -> Tensor:
        """(N, D) bounded rows -> (N, P) codes."""

    @abstractmethod
    def decode_rows(self, codes: Tensor) -> Tensor:
        """(N, P) codes -> (N, D) values."""

    def residual_scale(self) -> Tensor | float:
        """The factor by which subtracting their values makes rows smaller, where the codes have fixed positions."""
        return 1.0

    @torch.no_grad()
    def check_finite(self, z: Tensor, *, mask: Tensor | None = None) -> None:
        """Refuse latents that are NaN or infinite; reads values, so that a GPU is waited for.

        Raises:
            ConfigError: the latents have another number of channels, or the mask another shape.
            NonFiniteError: such latents, where the mask is true.
        """
        self._check_channels(z)
        values = z.float() if mask is None else self._rows(z)[self._kept(mask, z).flatten()]
        # A finite sum has only finite terms, and takes no memory; an infinite one may just be large terms.
        if bool(torch.isfinite(values.sum())):
            return
        wrong = int((~torch.isfinite(values)).sum())
        if wrong:
            raise NonFiniteError(
                f"latents hold {wrong:,} values that are not finite (NaN or infinity) of {values.numel():,}; check the "
                "pixels and the encoder's weights, or lower the learning rate it was trained with"
            )

    def check_codes(self, codes: Tensor, planes: int | None = None) -> None:
        """Refuse codes that no encoder of this quantizer can have written.

        Args:
            planes: expect the first so many planes alone.

        Raises:
            CodeRangeError: wrong number of planes, or a code outside its plane's alphabet.
        """
        codebook_sizes = self.codebook_sizes[:planes]
        axis = self._channel_axis(codes)
        if codes.ndim < 2 or codes.shape[axis] != len(codebook_sizes):
            raise CodeRangeError(
                f"codes have the shape {tuple(codes.shape)}, but this model reads {self._layout(len(codebook_sizes))}"
            )
        for plane, size in enumerate(codebook_sizes):
            low, high = (int(v) for v in codes.select(axis, plane).aminmax()) if codes.numel() else (0, 0)
            if low < 0 or high >= size:
                code = low if low < 0 else high
                raise CodeRangeError(
                    f"plane {plane} holds code {code}, but its alphabet is 0..{size - 1}; "
                    "was this file written by another model?"
                )

    def _quantized(self, rows: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        bounded = self.bound_rows(rows)
        values, codes, loss = self.quantize_rows(bounded, committed=bounded, examples=examples)
        # Zero, or NaN where a latent is NaN or infinite.
        return values, codes, loss + rows.detach().sum() * 0

    def _masked(self, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, D) values, (N, P) codes and the loss of the rows that a (B, G) mask keeps."""
        positions = kept.flatten().nonzero().flatten()
        examples = Examples.masked(kept, positions, shared=self.training)
        few = rows[positions]
        values = torch.zeros_like(rows, memory_format=torch.contiguous_format)
        codes = torch.zeros(len(rows), len(self.codebook_sizes), dtype=torch.int64, device=rows.device)
        if examples.total == 0:
            return values.index_copy(0, positions, few), codes, few.sum()
        found, found_codes, loss = self._quantized(few, examples)
        if not examples.rows:
            loss = loss.masked_fill(torch.ones_like(loss, dtype=torch.bool), 0.0)  # the mean of nothing is NaN
        elif examples.weight != 1:
            loss = loss * examples.weight
        return values.index_copy(0, positions, found), codes.index_copy(0, positions, found_codes), loss

    def _kept(self, mask: Tensor, z: Tensor) -> Tensor:
        """A (B, *grid) mask as (B, G), checked."""
        axis = self._channel_axis(z)
        expected = (*z.shape[:axis], *z.shape[axis + 1 :])
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ConfigError(
                f"the mask is {str(mask.dtype).removeprefix('torch.')} of the shape {tuple(mask.shape)}, but latents "
                f"of the shape {tuple(z.shape)} take a bool of the shape {tuple(expected)}, true where a latent counts"
            )
        return mask[:, None] if mask.ndim == 1 else mask.flatten(1)

    def _rows(self, z: Tensor) -> Tensor:
        """(B, D, *grid) -> (N, D) float32; a view where the memory is channels_last."""
        self._check_channels(z)
        return z.float().movedim(self._channel_axis(z), -1).reshape(-1, self.dimension)

    def _check_channels(self, z: Tensor) -> None:
        axis = self._channel_axis(z)
        if z.ndim < 2 or z.shape[axis] != self.dimension:
            found = f"the shape {tuple(z.shape)}" if z.ndim < 2 else f"{z.shape[axis]} channels"
            raise ConfigError(
                f"latents have {found}, but this quantizer takes {self.dimension} channels: "
                f"{self._layout(self.dimension)}"
            )

    def _grid(self, rows: Tensor, like: Tensor) -> Tensor:
        """(N, C) -> (B, C, *grid), with the batch and the grid of another tensor; no copy."""
        axis = self._channel_axis(like)
        shape = (*like.shape[:axis], *like.shape[axis + 1 :])
        return rows.view(*shape, rows.shape[1]).movedim(-1, axis)

    def _channel_axis(self, tensor: Tensor) -> int:
        return max(tensor.ndim - 1, 0) if self.channel_last else min(tensor.ndim - 1, 1)

    def _layout(self, channels: int) -> str:
        return f"(B, *grid, {channels})" if self.channel_last else f"(B, {channels}, *grid)"


class CountedQuantizer(Quantizer):
    """A quantizer that counts its training steps, for what it does in the first one and for what it samples.

    Samples depend on the number of the step alone, so that a resumed training needs no random state.
    """

    steps: Tensor

    def __init__(self, *, channel_last: bool = False) -> None:
        super().__init__(channel_last=channel_last)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # training batches so far
        self._step: int | None = None  # the same on the host, so that a GPU is asked once; None: ask
        self.register_load_state_dict_post_hook(_forget_step)  # type: ignore[no-untyped-call,unused-ignore]

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


def perplexity(counts: Tensor) -> Tensor:
    """The perplexity of a code: exp of the entropy of its counts, in nats.

    Args:
        counts: (K,) how often each code was chosen; all zero gives 1.
    """
    share = counts.float() / counts.sum().clamp_min(1)
    return torch.exp(-torch.xlogy(share, share).sum())


def count_codes(codes: Tensor, size: int) -> Tensor:
    """How often each of `size` codes occurs: (size,) float32. Unlike bincount it never waits for a GPU."""
    flat = codes.flatten()
    return torch.zeros(size, device=codes.device).index_add_(0, flat, torch.ones(len(flat), device=codes.device))
