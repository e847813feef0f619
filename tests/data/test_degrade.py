"""Degradations of one picture: each step against its formula or an independent implementation, and laws of all."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from smalti.config.degradation import COMPOSITIONS, FILTERS, FORMS, HOLES, parse_degradation
from smalti.data.degrade import (
    CODEC_SIDES,
    STEPS,
    Degraded,
    degrade,
    draw_hole,
    draw_scratches,
    fast_length,
    round_trip,
    sized,
)
from smalti.data.image_files import PIXEL_LIMIT
from smalti.errors import DataError

# A text for every step, with its numbers and words.
EVERY = {
    "noise": "noise(5..20,any)",
    "poisson": "poisson(5..20,any)",
    "speckle": "speckle(5..20,any)",
    "blur": "blur(0.5..2)|blur(1..8%,0.5)",
    "motion": "motion(3..20%)",
    "defocus": "defocus(1..3)",
    "down": "down(3,any)",
    "up": "up(2,any)",
    "resize": "resize(0.4..1.6,any)",
    "back": "resize(0.7) back(any)",
    "jpeg": "jpeg(10..90)",
    "webp": "webp(10..90)",
    "grey": "grey?0.5",
    "mask": "mask(any,0.05..0.4)",
    "scratches": "scratches(1..9)",
} | {name: name for name in COMPOSITIONS}


def picture(height: int = 60, width: int = 84, channels: int = 3, *, low: int = 25, high: int = 230) -> np.ndarray:
    """A smooth picture with some texture, and values that no filter carries beyond 0..255."""
    rng = np.random.default_rng(height + channels)
    coarse = Image.fromarray(rng.integers(low, high, (7, 9, 3), dtype=np.uint8)).resize((width, height), Image.BILINEAR)
    pixels = np.asarray(coarse) * 0.9 + rng.integers(low, high, (height, width, 1)) * 0.1
    alpha = np.tile(np.linspace(0, 255, width), (height, 1))[..., None]
    return np.concatenate([pixels, alpha], axis=2)[..., [0, 1, 2, 3][:channels]].round().astype(np.uint8)


def degraded(text: str, image: np.ndarray | None = None, *, seed: int = 0, number: int = 0) -> Degraded:
    return degrade(picture() if image is None else image, parse_degradation(text), seed=seed, number=number)


def levels(text: str, image: np.ndarray) -> np.ndarray:
    return degraded(text, image).image.astype(float)


# Laws


def test_every_step_is_there() -> None:
    assert set(STEPS) == set(FORMS)
    assert set(EVERY) == {*FORMS, *COMPOSITIONS}


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", EVERY)
def test_type_shape_alpha_and_repeatability(name: str, channels: int, depth: type) -> None:
    scale = 1 if depth is np.uint8 else 257
    image = picture(channels=channels).astype(depth) * depth(scale)
    kept = image.copy()
    image.flags.writeable = False
    degradation = parse_degradation(EVERY[name])
    for number in range(2):
        found = degraded(EVERY[name], image, seed=3, number=number)
        assert found.image.dtype == depth
        height, width = (sized(side, degradation.factor) for side in image.shape[:2])
        assert found.image.shape == (height, width, channels)
        assert (found.hole is None) == (not degradation.has_hole)
        if found.hole is not None:
            assert found.hole.shape == (height, width)
            assert found.hole.dtype == bool
        if channels == 4 and not {"down", "up", "resize"} & {step.name for step in found.applied.steps}:
            assert np.array_equal(found.image[..., 3], image[..., 3])
        again = degraded(EVERY[name], image, seed=3, number=number)
        assert np.array_equal(found.image, again.image)
        assert parse_degradation(str(found.applied)) == found.applied
        same = degrade(image, found.applied, seed=3, number=number)
        assert np.array_equal(found.image, same.image), "what was applied, applied again"
        assert same.applied == found.applied
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (3, 5), (17, 2)])
def test_pictures_of_any_size(name: str, height: int, width: int) -> None:
    for number in range(4):
        found = degraded(EVERY[name], picture(height, width), number=number)
        assert found.image.shape[:2] == tuple(
            sized(side, parse_degradation(EVERY[name]).factor) for side in (height, width)
        )


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("grey", "back", "down", "up")])
def test_seed_and_number_make_a_difference(name: str) -> None:
    results = [degraded(EVERY[name], seed=seed, number=number).image for seed in (0, 1) for number in (0, 1)]
    assert len({image.tobytes() for image in results}) == 4


def test_steps_go_one_after_the_other_and_nothing_is_rounded_between() -> None:
    image = picture()
    assert not np.array_equal(levels("down(2) blur(2)", image), levels("blur(2) down(2)", image))
    assert np.abs(levels("blur(3)", image) - levels("blur(2.4) blur(1.8)", image)).max() <= 1
    noisy = levels("noise(60) noise(60) noise(60) noise(60) blur(6)", np.full((64, 64, 1), 20, np.uint8))
    assert noisy.mean() == pytest.approx(20, abs=6), "noise below 0 is still there when it is blurred"


def test_nothing_is_left_as_it_is() -> None:
    image = picture(channels=4)
    found = degraded("none", image)
    assert np.array_equal(found.image, image)
    assert str(found.applied) == "none"
    assert str(degraded("jpeg(5)?0.000001").applied) == "none"


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8 or uint16"):
        degraded("none", image)


def test_pictures_that_would_become_too_large() -> None:
    side = int((PIXEL_LIMIT // 64) ** 0.5) + 8
    with pytest.raises(DataError, match="would become"):
        degraded("up(8)", np.zeros((side, side, 1), np.uint8))
    for format, most in CODEC_SIDES.items():
        with pytest.raises(DataError, match=f"{format} at most {most} a side"):
            degraded(f"{format}(50)", np.zeros((1, most + 1, 1), np.uint8))


# Noise


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("text", "level", "deviation"),
    [
        ("noise(12)", 30, 12),
        ("noise(12)", 200, 12),
        ("poisson(12)", 127.5, 12),
        ("poisson(12)", 32, 6),
        ("poisson(12)", 0, 0),
        ("speckle(12)", 128, 6),
        ("speckle(12)", 204, 9.6),
        ("speckle(12)", 0, 0),
    ],
)
def test_noise_has_the_deviation_that_is_asked_for(text: str, level: float, deviation: float, channels: int) -> None:
    image = np.full((200, 200, channels), round(257 * level), np.uint16)
    found = degraded(text, image).image / 257
    assert found.std() == pytest.approx(deviation, rel=0.02, abs=0.01)
    assert found.mean() == pytest.approx(level, abs=0.2)
    if channels == 3 and deviation:
        assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.02
        grey = degraded(text.replace(")", ",grey)"), image).image
        assert np.array_equal(grey[..., 0], grey[..., 2])
        assert (grey / 257).std() == pytest.approx(deviation, rel=0.02)


# Blur


@pytest.mark.parametrize("deviation", [0.3, 1, 2.5, 7, 40])
def test_blur_is_the_gaussian_of_scipy(deviation: float) -> None:
    image = picture(channels=4)
    wanted = ndimage.gaussian_filter(image.astype(float), (deviation, deviation, 0), mode="reflect", truncate=4)
    found = levels(f"blur({deviation})", image)
    assert np.abs(found - wanted)[..., :3].max() < 0.6
    assert np.array_equal(found[..., 3], image[..., 3])
    assert np.array_equal(found, levels(f"blur({deviation},{deviation},70)", image))


def test_anisotropic_blur_along_the_axes_is_separable() -> None:
    image = picture(channels=1)
    for angle, deviations in ((0, (1, 4)), (90, (4, 1)), (180, (1, 4))):
        wanted = ndimage.gaussian_filter(image[..., 0].astype(float), deviations, mode="reflect", truncate=17)
        assert np.abs(levels(f"blur(4,1,{angle})", image)[..., 0] - wanted).max() < 0.6


def spread(text: str) -> tuple[np.ndarray, float, float, float]:
    """What a point becomes, as shares; its deviations along the axes and their correlation, y upwards."""
    image = np.zeros((41, 41, 1), np.uint16)
    image[20, 20] = 65535
    found = degraded(text, image).image[..., 0] / 65535
    down, right = np.mgrid[-20:21, -20:21]
    variances = [(found * a * b).sum() for a, b in ((right, right), (down, down), (right, -down))]
    product = max(variances[0] * variances[1], 1e-12)
    return found, variances[0] ** 0.5, variances[1] ** 0.5, variances[2] / product**0.5


def test_points_become_ellipses_lines_and_discs() -> None:
    for text in ("blur(3,1,30)", "motion(11,30)", "defocus(5)"):
        assert spread(text)[0].sum() == pytest.approx(1, abs=5e-3)
    assert spread("blur(3,1,45)")[3] == pytest.approx(0.8, abs=0.01), "anticlockwise: right goes with up"
    _, across, along, _ = spread("blur(3,1,90)")
    assert (across, along) == pytest.approx((1, 3), abs=0.02)
    line = spread("motion(9,0)")[0]
    assert np.allclose(line[20, 16:25], 1 / 9, atol=1e-4)
    assert line[19].max() == 0
    assert spread("motion(9,45)")[3] > 0.94
    assert np.allclose(spread("motion(9,90)")[0][16:25, 20], 1 / 9, atol=1e-4)
    disc = spread("defocus(5)")[0]
    assert disc.max() == pytest.approx(1 / (np.pi * 25), rel=0.03)
    assert np.allclose(disc, np.rot90(disc))
    for text in ("blur(0)", "motion(0,10)", "motion(1,10)", "defocus(0)", "defocus(0.5)"):
        assert spread(text)[0][20, 20] == 1


def test_percentages_are_of_the_shorter_side_at_that_step() -> None:
    assert str(degraded("blur(5%) down(4) blur(5%)", picture(80, 120)).applied) == "blur(4) down(4) blur(1)"


@pytest.mark.parametrize("count", [1, 7, 16, 31, 97, 1000, 12289])
def test_fast_lengths_have_small_factors(count: int) -> None:
    found = fast_length(count)
    assert count <= found < 1.2 * count + 2
    for prime in (2, 3, 5):
        while found % prime == 0:
            found //= prime
    assert found == 1


# Sizes


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    ("text", "times"), [("down(2,{})", 0.5), ("down(3,{})", 1 / 3), ("down(4,{})", 0.25), ("up(2,{})", 2)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sizes_are_those_of_pillow_within_a_level(text: str, times: float, filter: str, channels: int) -> None:
    image = picture(channels=channels)
    size = (round(84 * times), round(60 * times))
    wanted = np.asarray(Image.fromarray(image.squeeze()).resize(size, Image.Resampling[filter.upper()]), float)
    found = levels(text.format(filter), image).reshape(wanted.shape)
    # Colours count as much as they can be seen; Pillow multiplies them by alpha in 8 bits, which costs two levels.
    weight = np.maximum(wanted[..., 3:], found[..., 3:]) / 255 if channels == 4 else 1
    assert (np.abs(found - wanted)[..., :3] * weight).max() <= (3 if channels == 4 else 1)
    if channels == 4:
        assert np.abs(found - wanted)[..., 3].max() <= 1


def test_what_cannot_be_seen_does_not_bleed() -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, 3:] = (0, 200, 0, 255)
    image[:, :3] = (255, 0, 0, 0)
    found = levels("down(2,box)", image)
    assert np.array_equal(found[0], [[0, 0, 0, 0], [0, 200, 0, 128], [0, 200, 0, 255], [0, 200, 0, 255]])


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("down(4)", (15, 21)),
        ("down(7)", (9, 12)),
        ("down(7) up(7)", (60, 84)),
        ("down(2) down(2) up(4)", (60, 84)),
        ("resize(0.37)", (60, 84)),
        ("resize(0.37) down(4)", (15, 21)),
        ("resize(0.5) back up(2) resize(1.3)", (120, 168)),
    ],
)
def test_sizes_come_back(text: str, shape: tuple[int, int]) -> None:
    assert degraded(text).image.shape[:2] == shape


def test_a_picture_stays_resized_until_it_is_back() -> None:
    small = picture(30, 42)
    image = small.repeat(2, axis=0).repeat(2, axis=1)

    found = Image.fromarray(round_trip(small, "jpeg", 50)).resize((84, 60), Image.Resampling.BICUBIC)
    assert np.abs(levels("resize(0.5,box) jpeg(50)", image) - np.asarray(found)).max() <= 1
    wanted = round_trip(image, "jpeg", 50)
    assert np.array_equal(degraded("resize(0.5,box) back(nearest) jpeg(50)", image).image, wanted)


# Files, colours


@pytest.mark.parametrize("format", CODEC_SIDES)
@pytest.mark.parametrize("quality", [1, 40, 100])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_are_written_by_pillow(format: str, quality: int, channels: int) -> None:
    image = picture(channels=channels)
    colours = Image.fromarray(image[..., :3].squeeze())
    file = io.BytesIO()
    colours.save(file, format.upper(), quality=quality)
    wanted = np.asarray(Image.open(file).convert(colours.mode)).reshape(60, 84, -1)
    assert np.array_equal(degraded(f"{format}({quality})", image).image[..., :3], wanted)


def test_grey_is_luma() -> None:
    image = picture()
    wanted = np.asarray(Image.fromarray(image).convert("L"))
    assert np.abs(levels("grey", image) - wanted[..., None]).max() <= 1
    one = picture(channels=1)
    assert np.array_equal(degraded("grey", one).image, one)


def test_sixteen_bits_are_the_same_and_finer() -> None:
    image = picture()
    for text in ("blur(2)", "down(3)", "jpeg(30)", "noise(9)", "scratches(5)"):
        deep = degraded(text, image.astype(np.uint16) * np.uint16(257)).image
        assert np.abs(deep / 257 - degraded(text, image).image).max() <= 0.51
    assert (degraded("blur(2)", image.astype(np.uint16) * np.uint16(257)).image % 257 != 0).mean() > 0.9


# Holes and scratches


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.6, 0.9])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 80), (300, 200)])
def test_holes_have_their_share(kind: str, share: float, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    holes = [draw_hole(height, width, kind, share, rng) for _ in range(4)]
    for hole in holes:
        assert abs(hole.sum() - share * height * width) <= max(0.035 * share * height * width, 3)
    assert len({hole.tobytes() for hole in holes}) > 1
    if share == 0.25 and height > 16:
        where = np.stack(holes + [draw_hole(height, width, kind, share, rng) for _ in range(40)]).mean(axis=0)
        assert where.max() < 0.75, "they are not always in the same place"


def test_holes_are_grey_and_grow_with_what_they_touch() -> None:
    image = picture()
    found = degraded("mask(boxes,0.2)", image)
    assert found.hole is not None
    assert (found.image[found.hole] == 128).all()
    assert np.array_equal(found.image[~found.hole], image[~found.hole])
    twice = degraded("mask(boxes,0.2) mask(boxes,0.2)", image).hole
    assert twice is not None
    assert 0.2 < twice.mean() < 0.4
    small = degraded("mask(boxes,0.2) down(4,box)", image)
    assert small.hole is not None
    assert np.array_equal(small.hole, found.hole.reshape(15, 4, 21, 4).any(axis=(1, 3)))
    clean = degraded("down(4,box)", image)
    assert np.array_equal(small.image[~small.hole], clean.image[~small.hole])
    skipped = degraded("mask(boxes,0.2)?0.000001", image)
    assert skipped.hole is not None
    assert not skipped.hole.any()


def test_scratches_are_few_thin_lines_bright_and_dark() -> None:
    image = np.full((200, 200, 3), 100, np.uint8)
    changed = [np.abs(levels(f"scratches({count})", image) - 100).max(axis=2) > 20 for count in (0, 1, 5, 30)]
    shares = [one.mean() for one in changed]
    assert shares[0] == 0
    assert 0 < shares[1] < 0.015
    assert shares[1] < shares[2] < shares[3] < 0.25
    assert not ndimage.binary_erosion(changed[1], iterations=2).any()
    bright, dark = draw_scratches(200, 200, 30, np.random.default_rng(0))
    assert 0.5 < bright.max() <= 1
    assert (bright > 0).sum() > (dark > 0).sum() > 0
    many = levels("scratches(30)", image)
    assert many.max() > 200
    assert many.min() < 40
