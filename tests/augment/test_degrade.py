"""Degradations of a batch: the same as of single pictures, with numbers of its own for each image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from smalti.augment.degrade import COLOUR_STEPS, Degraded, degrade
from smalti.config.degradation import COMPOSITIONS, FORMS, parse_degradation
from smalti.data.degrade import degrade as degrade_picture
from smalti.data.degrade import sized
from smalti.errors import DataError
from smalti.runtime import rng
from smalti.runtime.pixels import to_levels, to_pixels, to_tensor
from smalti.runtime.rng import Draws

# A text for every step, with its numbers and words.
EVERY = {
    "noise": "noise(5..20,any)",
    "poisson": "poisson(5..20,any)",
    "speckle": "speckle(5..20,any)",
    "blur": "blur(0.5..2)|blur(1..8%,0.5)",
    "motion": "motion(0..20%)",
    "defocus": "defocus(0..3)",
    "down": "down(3,any)",
    "up": "up(2,any)",
    "resize": "resize(0.4..1.6,any)",
    "back": "resize(0.7) back(any)",
    "jpeg": "jpeg(10..90)",
    "webp": "webp(10..90)",
    "grey": "grey?0.5",
    "mask": "mask(any,0.05..0.4)?0.8",
    "scratches": "scratches(1..9)",
} | {name: name for name in COMPOSITIONS}
RANDOM = ("noise", "poisson", "speckle", "mask", "scratches")  # what two implementations draw differently
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def pictures(count: int = 5, channels: int = 3, height: int = 40, width: int = 52) -> np.ndarray:
    """Smooth pictures with some texture; alpha rises from left to right, from where colours are well defined."""
    rng = np.random.default_rng(channels)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(25, 230, (5, 7, 3), dtype=np.uint8)).resize((width, height))
        made.append(np.asarray(coarse) * 0.9 + rng.integers(25, 230, (height, width, 1)) * 0.1)
    alpha = np.broadcast_to(np.linspace(60, 255, width)[:, None], (count, height, width, 1))
    return np.concatenate([np.stack(made), alpha], axis=3)[..., [0, 1, 2, 3][:channels]].round().astype(np.uint8)


def degraded(text: str, images: Tensor | np.ndarray, *, seed: int = 0, images_seen: int = 0) -> Degraded:
    x = to_tensor(images) if isinstance(images, np.ndarray) else images
    return degrade(x, parse_degradation(text), Draws(seed, images_seen))


def flat(level: float, count: int = 4, channels: int = 3, side: int = 64) -> Tensor:
    return torch.full((count, channels, side, side), level / 127.5 - 1)


# The same as with numpy


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "text",
    ["none", "blur(0.3)", "blur(2)", "blur(30)", "blur(5%)", "blur(3,0.5,30)", "motion(13,70)", "motion(1,10)",
     "defocus(3)", "down(2)", "down(3,box)", "down(4,lanczos)", "down(2,bilinear)", "down(5,nearest)", "down(7)",
     "up(2)", "up(3,box)", "down(4) up(4,lanczos)", "grey", "resize(0.37)", "resize(1.6,box) blur(1) down(2)",
     "resize(0.5) back(box) blur(1)", "blur(2) down(2,box) defocus(1)"],
)  # fmt: skip
def test_both_implementations_agree_within_a_level(text: str, channels: int) -> None:
    images = pictures(channels=channels)
    found = degraded(text, images)
    wanted = np.stack([degrade_picture(image, parse_degradation(text), seed=0).image for image in images])
    assert np.abs(to_pixels(found.images).astype(int) - wanted).max() <= 1
    assert found.hole is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("text", ["jpeg(5)", "jpeg(95)", "webp(30)", "grey jpeg(40)", "jpeg(20) jpeg(70)"])
def test_files_are_the_same(text: str, channels: int) -> None:
    images = pictures(channels=channels)
    wanted = np.stack([degrade_picture(image, parse_degradation(text), seed=0).image for image in images])
    assert np.abs(to_pixels(degraded(text, images).images).astype(int) - wanted).mean() < 0.05


@pytest.mark.parametrize(
    "text",
    ["blur(0.5..4)|blur(1..4,0.3)|defocus(0.5..4)?0.7", "motion(0..30%)", "resize(0.4..1.5,any) blur(0.5..2)?0.5",
     "resize(0.4..1.5)?0.5 back?0.5 defocus(1..3) back(any)", "down(2,any) blur(1..9%)|grey", "grey?0.5 motion(5)"],
)  # fmt: skip
def test_every_image_went_through_what_is_said_of_it(text: str) -> None:
    images = pictures(12)
    found = degraded(text, images)
    applied = [found.applied_to(number) for number in range(12)]
    assert len(set(map(str, applied))) > 2
    for image, steps, result in zip(images, applied, to_pixels(found.images), strict=True):
        assert parse_degradation(str(steps)) == steps
        assert np.abs(degrade_picture(image, steps, seed=0).image.astype(int) - result).max() <= 1


# Laws


def test_every_step_is_there() -> None:
    assert set(COLOUR_STEPS) | {"down", "up", "resize", "back", "mask"} == set(FORMS)
    assert set(EVERY) == {*FORMS, *COMPOSITIONS}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", EVERY)
def test_shape_range_alpha_and_repeatability(name: str, channels: int, device: str) -> None:
    degradation = parse_degradation(EVERY[name])
    images = to_tensor(pictures(channels=channels), device)
    kept = images.clone()
    found = degrade(images, degradation, Draws(7, 64, device=device))
    height, width = (sized(side, degradation.factor) for side in images.shape[2:])
    assert found.images.shape == (5, channels, height, width)
    assert found.images.dtype == torch.float32
    assert found.images.device == images.device
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    assert found.images.abs().max() <= 1
    assert (found.hole is None) == (not degradation.has_hole)
    if found.hole is not None:
        assert found.hole.shape == (5, 1, height, width)
        assert set(found.hole.unique().tolist()) <= {0.0, 1.0}
    if channels == 4 and not {"down", "up", "resize"} & {applied.step.name for applied in found.parameters}:
        assert torch.equal(found.images[:, 3], images[:, 3])
    assert torch.equal(images, kept), "the images that were given are left alone"
    again = degrade(images, degradation, Draws(7, 64, device=device))
    assert torch.equal(found.images, again.images)
    other = degrade(images, degradation, Draws(7, 69, device=device))
    assert name in ("grey", "back", "down", "up") or not torch.equal(found.images, other.images)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (17, 2)])
def test_images_of_any_size(name: str, height: int, width: int) -> None:
    factor = parse_degradation(EVERY[name]).factor
    found = degraded(EVERY[name], pictures(3, height=height, width=width)).images
    assert found.shape[2:] == (sized(height, factor), sized(width, factor))
    assert found.isfinite().all()


@pytest.mark.parametrize(
    "text", [*EVERY.values(), "resize(0.5..1)?0.5 noise(9) jpeg(50) mask(any,0.2) scratches(5) noise(5,any)"]
)
def test_images_get_the_same_however_many_ranks_share_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = to_tensor(pictures(6))
    whole = degraded(text, images, seed=3, images_seen=12)
    monkeypatch.setattr(rng, "world", lambda: 3)
    for number in range(3):
        monkeypatch.setattr(rng, "rank", lambda number=number: number)
        mine = slice(2 * number, 2 * number + 2)
        part = degraded(text, images[mine], seed=3, images_seen=12)
        # Fourier transforms of another length differ in their last bits, which may cross half a level in a file.
        assert (part.images - whole.images[mine]).abs().mean() < 1e-3
        if not any(word in text for word in ("jpeg", "webp", *COMPOSITIONS)):
            torch.testing.assert_close(part.images, whole.images[mine], atol=1e-5, rtol=0)
        assert [str(part.applied_to(image)) for image in range(2)] == [
            str(whole.applied_to(2 * number + image)) for image in range(2)
        ]
        if whole.hole is not None and part.hole is not None:
            assert torch.equal(part.hole, whole.hole[mine])


def test_nothing_changes_nothing() -> None:
    images = to_tensor(pictures(channels=4))
    found = degraded("none", images)
    assert torch.equal(found.images, images)
    assert found.parameters == ()


def test_nothing_is_rounded_and_nothing_clipped_before_the_end() -> None:
    images = flat(100.0)
    levels = to_levels(degraded("noise(10)", images).images)
    assert (levels - levels.round()).abs().mean() > 0.2
    blurred = to_levels(degraded("noise(200) blur(5)", flat(10.0)).images)
    assert blurred.mean() == pytest.approx(10, abs=3), "noise below 0 is still there when it is blurred"
    jpeg = to_levels(degraded("noise(10) jpeg(90)", images).images)
    assert (jpeg - jpeg.round()).abs().max() < 1e-4


def test_images_of_a_batch_have_numbers_of_their_own() -> None:
    found = degraded("noise(1..40)", flat(127.5, count=64))
    (applied,) = found.parameters
    asked = applied.numbers[:, 0]
    measured = to_levels(found.images).flatten(1).std(dim=1).numpy()
    assert asked.min() < 4
    assert asked.max() > 37
    assert np.abs(measured / asked - 1).max() < 0.05
    assert applied.used.all()


def test_chances_and_alternatives_are_drawn_for_each_image() -> None:
    found = degraded("noise(10)|poisson(20)?0.5 blur(1)?0.25", flat(60.0, count=400, side=8, channels=1))
    noise, poisson, blur = found.parameters
    assert noise.used.mean() == pytest.approx(0.25, abs=0.07)
    assert poisson.used.mean() == pytest.approx(0.25, abs=0.07)
    assert blur.used.mean() == pytest.approx(0.25, abs=0.07)
    assert not (noise.used & poisson.used).any()
    untouched = torch.from_numpy(~(noise.used | poisson.used | blur.used))
    assert torch.allclose(found.images[untouched], flat(60.0, count=1, side=8, channels=1))
    changed = (found.images - flat(60.0, count=400, side=8, channels=1)).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert torch.equal(changed, torch.from_numpy(noise.used | poisson.used))


# Noise, sizes, holes


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("text", "level", "deviation"),
    [("noise(12)", 60, 12), ("poisson(12)", 127.5, 12), ("poisson(12)", 64, 8.5), ("speckle(12)", 204, 9.6),
     ("poisson(12)", 0, 0)],
)  # fmt: skip
def test_noise_has_the_deviation_that_is_asked_for(
    text: str, level: float, deviation: float, channels: int, resized: bool
) -> None:
    images = flat(level, channels=channels)
    before = "resize(1) " if resized else ""  # after which every image has noise from a generator of its own
    found = to_levels(degraded(before + text, images).images[:, :3])
    assert found.std() == pytest.approx(deviation, rel=0.03, abs=0.01)
    assert found.mean() == pytest.approx(level, abs=0.4)
    assert deviation == 0 or not torch.equal(found[0], found[1])
    if channels > 1:
        grey = to_levels(degraded(before + text.replace(")", ",grey)"), images).images)
        assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-4)
        assert grey[:, :3].std() == pytest.approx(deviation, rel=0.05, abs=0.01)


@pytest.mark.parametrize("filter", ["bicubic", "box", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize("times", [2, 3, 4])
def test_sizes_are_those_of_pillow_within_a_level(times: int, filter: str) -> None:
    images = pictures(2)
    size = (
        sized(52, parse_degradation(f"down({times})").factor),
        sized(40, parse_degradation(f"down({times})").factor),
    )
    found = to_pixels(degraded(f"down({times},{filter})", images).images).astype(int)
    for image, result in zip(images, found, strict=True):
        wanted = Image.fromarray(image).resize(size, Image.Resampling[filter.upper()])
        assert np.abs(result - np.asarray(wanted)).max() <= 1


def test_a_degraded_batch_enlarged_by_the_scale_has_its_size_again() -> None:
    degradation = parse_degradation("second-order mask(boxes,0.1) down(4)")
    found = degrade(to_tensor(pictures()), degradation, Draws(0, 0))
    assert found.hole is not None
    assert found.images.shape[2:] == found.hole.shape[2:] == (40 // degradation.scale, 52 // degradation.scale)


@pytest.mark.parametrize("kind", ["boxes", "strokes", "text"])
def test_holes_are_grey_and_have_their_share(kind: str) -> None:
    images = to_tensor(pictures(6, channels=4))
    found = degraded(f"mask({kind},0.1..0.4)", images)
    assert found.hole is not None
    shares = found.hole.mean(dim=(1, 2, 3)).numpy()
    assert np.abs(shares - found.parameters[0].numbers[:, 0]).max() < 0.02
    hole = found.hole.bool().expand(-1, 3, -1, -1)
    assert (found.images[:, :3][hole] == 0).all()
    assert torch.equal(found.images[:, :3][~hole], images[:, :3][~hole])
    sometimes = degraded("mask(boxes,0.2)?0.5", to_tensor(pictures(40, height=8, width=8))).hole
    assert sometimes is not None
    assert 8 < int((sometimes.amax(dim=(1, 2, 3)) == 0).sum()) < 32


def test_holes_grow_with_what_they_touch() -> None:
    images = to_tensor(pictures())
    # Two degradations with as many random numbers, so that the holes are the same.
    whole, small = (degraded(f"mask(boxes,0.2) {step}", images).hole for step in ("jpeg(99)", "down(4)"))
    assert whole is not None
    assert small is not None
    assert torch.equal(small, torch.nn.functional.max_pool2d(whole, 4))


def test_images_too_large_for_a_file() -> None:
    with pytest.raises(DataError, match="webp at most 16383 a side"):
        degraded("webp(50)", torch.zeros(1, 1, 1, 16384))


def test_the_guide_works_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "degradations.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(snippet, "degradations.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first in page, "the comment has what is printed"
    assert second.startswith("torch.Size([4, 3, 64, 64]) torch.Size([4, 1, 64, 64]) blur(")
