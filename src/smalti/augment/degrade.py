"""Degradations of a batch of images, each with random numbers of its own.

The steps and their formulas are those of `smalti.data.degrade`, which does the same to one picture with numpy; noise,
holes and scratches come from other random numbers. What is different here:

    noise     one field for the batch; for images that `resize` gave sizes of their own, one for each
    blurs     a kernel for each image, in the frequency domain, where a wide kernel costs no more than a small one
    sizes     A x B^T, with Pillow's weights in A and B

All random numbers of an image come from its rows of the draws, so they do not depend on how a batch is split over
ranks. Values are neither rounded nor clipped between steps, except by jpeg and webp, and where RGBA images change size;
at the end they are clipped to [-1, 1].  jpeg, webp, holes and scratches are made on the CPU, image by image.
Layout: (B, C, H, W) float32 in [-1, 1]; a fourth channel is alpha.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smalti.config.degradation import Degradation, Number, Step
from smalti.data import degrade as pictures
from smalti.data.degrade import sized
from smalti.runtime.pixels import premultiplied, to_levels, to_pixels, to_tensor, unpremultiplied
from smalti.runtime.rng import Draws, mix


class Applied(NamedTuple):
    """What one step did to a batch.

    Attributes:
        step: as in the degradation, without probability and alternatives.
        used: (B,) bool: the images that it was applied to.
        numbers: (B, N) float64: its numbers for each image, lengths in pixels, and an angle that was drawn.
        word: (B,) int64: which of `step.words`; 0 if it has none.
    """

    step: Step
    used: np.ndarray
    numbers: np.ndarray
    word: np.ndarray


class Degraded(NamedTuple):
    """Degraded images.

    Attributes:
        images: (B, C, h, w) float32 in [-1, 1], channels last in memory; H and W times `degradation.factor`, rounded.
        hole: (B, 1, h, w) float32, 1 where pixels are missing; None if the degradation has no `mask`.
        parameters: what was applied, in order.
    """

    images: Tensor
    hole: Tensor | None
    parameters: tuple[Applied, ...]

    def applied_to(self, image: int) -> Degradation:
        """The steps that one image went through, with their numbers, kept to 6 decimals."""
        steps = [
            Step(step.name, tuple(Number(value, value) for value in numbers[image]), step.words[word[image] :][:1])
            for step, used, numbers, word in self.parameters
            if used[image]
        ]
        return Degradation(tuple(steps))


def degrade(images: Tensor, degradation: Degradation, draws: Draws) -> Degraded:
    """Degrade a batch.

    Args:
        images: (B, C, H, W) float32 in [-1, 1], C = 1, 3 or 4.
        degradation: from `smalti.config.degradation.parse_degradation`.
        draws: the random numbers of this step.

    Raises:
        DataError: the images are too large for the files of a step.
    """
    plan, columns = _plan(degradation)
    chance = draws.uniform(len(images), columns).cpu().double().numpy()
    batch = _Batch(images, degradation.has_hole, draws)
    parameters = []
    for planned in plan:
        parameters.append(planned.drawn(chance, batch.groups))
        batch.apply(parameters[-1], chance[:, planned.first : planned.first + 2], sure=not planned.conditions)
    return Degraded(*batch.finished(), tuple(parameters))


Conditions = tuple[tuple[int, float, float], ...]  # column, low, high


@dataclass(frozen=True)
class _Planned:
    """A step and its columns of the chances."""

    step: Step
    conditions: Conditions  # it is applied where all of these chances are in [low, high)
    first: int  # the first two columns seed what it draws itself; one for its word and one for each number follow

    def drawn(self, chance: np.ndarray, groups: list[_Group]) -> Applied:
        """The numbers of each image, from its chances (B, columns)."""
        step, sides = self.step, np.empty(len(chance))
        for group in groups:
            sides[group.rows] = min(group.size)
        used = np.ones(len(chance), bool)
        for column, low, high in self.conditions:
            used &= (chance[:, column] >= low) & (chance[:, column] < high)
        numbers = np.empty((len(chance), len(step.ranges)))
        for place, (number, argument) in enumerate(zip(step.ranges, step.form.arguments, strict=False)):
            u, span = chance[:, self.first + 3 + place], number.high - number.low
            value = number.low + (np.floor(u * (span + 1)) if argument.whole else u * span)
            numbers[:, place] = np.minimum(value * sides / 100, argument.high) if number.percent else value
        return Applied(step, used, numbers, (chance[:, self.first + 2] * len(step.words)).astype(np.int64))


@functools.lru_cache(maxsize=64)
def _plan(degradation: Degradation) -> tuple[tuple[_Planned, ...], int]:
    """The steps in order, and how many chances each image needs."""
    plan, columns = list[_Planned](), 0

    def add(steps: Sequence[Step], conditions: Conditions) -> None:
        nonlocal columns
        for step in steps:
            branches, coin, pick = step.branches, columns, columns + 1
            columns += 2
            given = (*conditions, (coin, 0.0, step.probability)) if step.probability < 1 else conditions
            for place, branch in enumerate(branches):
                share = ((pick, place / len(branches), (place + 1) / len(branches)),) if len(branches) > 1 else ()
                if branch != (step,):
                    add(branch, given + share)
                    continue
                plan.append(_Planned(Step(step.name, step.numbers, step.words), given, columns))
                columns += 3 + len(step.ranges)

    add(degradation.steps, ())
    return tuple(plan), columns


@dataclass(frozen=True)
class _Group:
    """Images of one size: their rows of the batch (n,), pixels (n, C, h, w), holes (n, 1, h, w) or None."""

    rows: np.ndarray
    images: Tensor
    hole: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    def taken(self, places: np.ndarray) -> _Group:
        """The images at some places of the group, (m,) int64."""
        if len(places) == len(self.rows):
            return self
        there = torch.from_numpy(places).to(self.images.device)
        return _Group(self.rows[places], self.images[there], None if self.hole is None else self.hole[there])


@dataclass(frozen=True)
class _Call:
    """What a step is told of n images: numbers (n, N), words, chances (n, 2) for seeds, noise (n, C, h, w) or None."""

    step: Step
    numbers: np.ndarray
    words: list[str]
    chance: np.ndarray
    field: Tensor | None
    device: torch.device  # of the random numbers

    def on(self, device: torch.device) -> Tensor:
        """The numbers as (n, N) float32."""
        return torch.from_numpy(self.numbers).float().to(device)

    def seeds(self) -> list[int]:
        return [mix(*words) for words in (self.chance * 2**24).astype(int).tolist()]

    def generators(self) -> list[np.random.Generator]:
        return [np.random.Generator(np.random.PCG64(seed)) for seed in self.seeds()]


class _Batch:
    """A batch as groups of images of one size each; only `resize` makes more than one."""

    def __init__(self, images: Tensor, has_hole: bool, draws: Draws) -> None:
        hole = torch.zeros_like(images[:, :1]) if has_hole else None
        self.groups = [_Group(np.arange(len(images)), images, hole)]
        self.count, self.colours, self.draws = len(images), min(3, images.shape[1]), draws
        self.original = self.base = self.groups[0].size  # `base` is what the size would be without `resize`
        self.factor = Fraction(1)
        self.scattered = False  # whether images may have other sizes than `base`, on this rank or another

    def apply(self, applied: Applied, chance: np.ndarray, *, sure: bool) -> None:
        """Apply a step; `chance` is (B, 2), for seeds."""
        step, before, field = applied.step, self.base, None
        if step.name in NOISES and not self.scattered:  # for all images, so that all ranks draw alike
            field = self.draws.normal(self.count, self.colours, *self.base)
        if step.name in ("down", "up"):
            times = int(step.numbers[0].low)
            self.factor *= times if step.name == "up" else Fraction(1, times)
            self.base = (sized(self.original[0], self.factor), sized(self.original[1], self.factor))
        groups = list[_Group]()
        for group in self.groups:
            used = applied.used[group.rows]
            if not used.all():
                groups.append(group.taken(np.flatnonzero(~used)))
            if used.any():
                part = group.taken(np.flatnonzero(used))
                rows = part.rows
                words = [step.words[word] for word in applied.word[rows].tolist()] if step.words else []
                own = None if field is None else field[torch.from_numpy(rows).to(field.device)]
                call = _Call(step, applied.numbers[rows], words, chance[rows], own, self.draws.device)
                groups += self._changed(part, call, before)
        self.groups = _merged(groups)
        self.scattered = step.name == "resize" or (self.scattered and not (step.name == "back" and sure))

    def _changed(self, group: _Group, call: _Call, before: tuple[int, int]) -> list[_Group]:
        """A group after a step; `before` is what `base` was before it."""
        if call.step.name in COLOUR_STEPS:
            colours = COLOUR_STEPS[call.step.name](group.images[:, :3], call)
            return [_Group(group.rows, _with_alpha(colours, group.images), group.hole)]
        if call.step.name == "mask":
            return [_masked(group, call)]
        ratios = [(Fraction(self.base[0], before[0]), Fraction(self.base[1], before[1]))] * len(group.rows)
        if call.step.name == "resize":
            ratios = [(Fraction(value).limit_denominator(10**6),) * 2 for value in call.numbers[:, 0].tolist()]
        height, width = group.size
        sizes = [(sized(height, down), sized(width, right)) for down, right in ratios]
        goals = list(zip([self.base] * len(sizes) if call.step.name == "back" else sizes, call.words, strict=True))
        return [
            _resized(group.taken(np.flatnonzero([goal == other for other in goals])), *goal)
            for goal in dict.fromkeys(goals)
        ]

    def finished(self) -> tuple[Tensor, Tensor | None]:
        """The images in their order and of one size, clipped, and their holes."""
        (group,) = _merged([_resized(group, self.base, "bicubic") for group in self.groups])
        images, hole = group.images, group.hole
        if (np.diff(group.rows) < 0).any():
            order = torch.from_numpy(group.rows.argsort()).to(images.device)
            images, hole = images[order], None if hole is None else hole[order]
        return images.clamp(-1, 1).contiguous(memory_format=torch.channels_last), hole


def _merged(groups: list[_Group]) -> list[_Group]:
    """Groups of which no two have the same size."""
    by_size = dict[tuple[int, int], list[_Group]]()
    for group in groups:
        by_size.setdefault(group.size, []).append(group)
    return [same[0] if len(same) == 1 else _joined(same) for same in by_size.values()]


def _joined(groups: list[_Group]) -> _Group:
    holes = [group.hole for group in groups if group.hole is not None]
    rows, images = np.concatenate([group.rows for group in groups]), torch.cat([group.images for group in groups])
    return _Group(rows, images, torch.cat(holes) if holes else None)


def _noise(images: Tensor, call: _Call) -> Tensor:
    field, device = call.field, call.device
    if field is None:
        generators = [torch.Generator(device).manual_seed(seed) for seed in call.seeds()]
        field = torch.stack([torch.randn(images.shape[1:], generator=own, device=device) for own in generators])
    field = field.to(images.device)
    if "grey" in call.words:
        grey = torch.tensor([word == "grey" for word in call.words], device=images.device)
        field = torch.where(grey[:, None, None, None], field[:, :1], field)
    deviation = call.on(images.device)[:, 0, None, None, None] / 127.5
    return images + deviation * NOISES[call.step.name](to_levels(images)) * field


NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": torch.ones_like,
    "poisson": lambda levels: (levels.clamp_min(0) / 127.5).sqrt(),
    "speckle": lambda levels: levels / 255,
}
"""The deviation of each kind of noise as a share of its S."""


def _blur(images: Tensor, call: _Call) -> Tensor:
    numbers = call.on(images.device)
    deviation = numbers[:, :2].clamp_min(0.05)[..., None, None]
    radius = math.ceil(pictures.CUT_OFF * max(call.numbers[:, :2].max(), 0.05))
    u, v, distance = _offsets(radius, (numbers[:, 2] if numbers.shape[1] > 2 else 0 * numbers[:, 0])[:, None, None])
    weights = torch.exp(-((u / deviation[:, 0]).square() + (v / deviation[:, -1]).square()) / 2)
    return _convolved(images, weights * (distance <= (pictures.CUT_OFF * deviation.amax(dim=1)).ceil()))


def _motion(images: Tensor, call: _Call) -> Tensor:
    length, angle = call.on(images.device)[..., None, None].unbind(dim=1)
    u, v, distance = _offsets(math.ceil(call.numbers[:, 0].max() / 2 + 1), angle)
    weights = ((length + 1) / 2 - u.abs()).clamp(0, 1) * (1 - v.abs()).clamp(0, 1)
    return _convolved(images, torch.where(length > 1, weights, (distance == 0).float()))


def _defocus(images: Tensor, call: _Call) -> Tensor:
    radius = call.on(images.device)[:, 0, None, None].clamp_min(0.5)
    u, v, _ = _offsets(math.ceil(call.numbers.max() + 1), torch.zeros_like(radius))
    return _convolved(images, (radius + 0.5 - torch.hypot(u, v)).clamp(0, 1))


def _offsets(radius: int, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances of the pixels of a square from its centre: along angles (B, 1, 1), across, and along the axes."""
    line = torch.arange(-radius, radius + 1, device=angle.device, dtype=torch.float32)
    down, right = line[:, None], line[None, :]
    cosine, sine = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    return right * cosine - down * sine, right * sine + down * cosine, torch.maximum(down.abs(), right.abs())


def _convolved(images: Tensor, weights: Tensor) -> Tensor:
    """Convolve images with kernels (B, k, k) that are normalised here; beyond the border they are mirrored."""
    radius, (height, width) = weights.shape[1] // 2, images.shape[2:]
    kernels = weights / weights.sum(dim=(1, 2), keepdim=True)
    size = [pictures.fast_length(side + 2 * radius) for side in (height, width)]
    for axis, side in ((2, height), (3, width)):
        place = torch.arange(-radius, side + radius, device=images.device) % (2 * side)
        images = images.index_select(axis, torch.where(place < side, place, 2 * side - 1 - place))
    spectrum = torch.fft.rfft2(images, s=size) * torch.fft.rfft2(kernels, s=size)[:, None]
    return torch.fft.irfft2(spectrum, s=size)[:, :, 2 * radius :, 2 * radius :][:, :, :height, :width]


def _recompressed(images: Tensor, call: _Call) -> Tensor:
    pairs = zip(to_pixels(images), call.numbers[:, 0].tolist(), strict=True)
    found = [pictures.round_trip(pixels, call.step.name, int(quality)) for pixels, quality in pairs]
    return to_tensor(np.stack(found), images.device)


def _grey(images: Tensor, call: _Call) -> Tensor:
    weights = images.new_tensor(pictures.LUMA if images.shape[1] == 3 else [1.0])
    return torch.einsum("c,bchw->bhw", weights, images)[:, None].expand_as(images)


def _scratched(images: Tensor, call: _Call) -> Tensor:
    drawn = [
        np.stack(pictures.draw_scratches(images.shape[2], images.shape[3], int(count), generator))
        for count, generator in zip(call.numbers[:, 0].tolist(), call.generators(), strict=True)
    ]
    opacities = torch.from_numpy(np.stack(drawn)).to(images.device)
    for opacity, level in zip(opacities.split(1, dim=1), (pictures.BRIGHT, pictures.DARK), strict=True):
        images = images + opacity * (level / 127.5 - 1 - images)
    return images


COLOUR_STEPS: Mapping[str, Callable[[Tensor, _Call], Tensor]] = {
    **dict.fromkeys(NOISES, _noise),
    "blur": _blur,
    "motion": _motion,
    "defocus": _defocus,
    **dict.fromkeys(pictures.CODEC_SIDES, _recompressed),
    "grey": _grey,
    "scratches": _scratched,
}
"""What each step does to (n, C, h, w) without alpha; those that change size or hole are in `_Batch._changed`."""


def _with_alpha(colours: Tensor, images: Tensor) -> Tensor:
    return torch.cat([colours, images[:, 3:]], dim=1) if images.shape[1] > 3 else colours


def _masked(group: _Group, call: _Call) -> _Group:
    drawn = [
        pictures.draw_hole(*group.size, word, share, generator)
        for word, share, generator in zip(call.words, call.numbers[:, 0].tolist(), call.generators(), strict=True)
    ]
    hole = torch.from_numpy(np.stack(drawn))[:, None].to(group.images.device)
    assert group.hole is not None
    images = _with_alpha(group.images[:, :3].masked_fill(hole, 0.0), group.images)
    return _Group(group.rows, images, torch.maximum(group.hole, hole.float()))


def _resized(group: _Group, size: tuple[int, int], filter: str) -> _Group:
    if size == group.size:
        return group
    images = _resampled(premultiplied(group.images), size, filter)
    if images.shape[1] == 4:
        images = unpremultiplied(_with_alpha(images[:, :3], images.clamp(-1, 1)))
    hole = None if group.hole is None else (_resampled(group.hole, size, "box") > pictures.TOUCHED).float()
    return _Group(group.rows, images, hole)


def _resampled(images: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    rows, columns = (
        _resampling_matrix(old, new, filter).to(images.device) for old, new in zip(images.shape[2:], size, strict=True)
    )
    return rows @ (images @ columns.T)


@functools.lru_cache(maxsize=128)
def _resampling_matrix(old: int, new: int, filter: str) -> Tensor:
    """(new, old) float32: Pillow's weights of the old pixels in each new one, from what it makes of a unit matrix."""
    unit = Image.fromarray(np.eye(old, dtype=np.float32))
    return torch.from_numpy(np.array(unit.resize((new, old), pictures.FILTERS[filter])).T.copy())
