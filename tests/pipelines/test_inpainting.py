"""Holes: which codes they hide, what stays, and how seams vanish."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import strong
from small_codes import small_codes, small_pictures
from small_runs import small_config

from smalti.errors import CheckpointError, ConfigError
from smalti.models.prior import likelihood
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling
from smalti.pipelines import base as api
from smalti.pipelines import inpainting
from smalti.pipelines.prior import Prior
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("fillers")
    codes = small_codes(folder)
    made = SimpleNamespace()
    for name, preset, extra in (
        ("causal", "prior-nano", ()),
        ("masked", "maskgit-small", ()),
        ("text", "text-emoji", ()),
        ("labelled", "maskgit-small", ("model.condition=class",)),
        ("sure", "prior-nano", ("model.condition=class", "model.condition_dropout=0")),
    ):
        train(small_config(preset, *extra), codes, folder / name, machine=Machine("cpu", "float32"))
        setattr(made, name, folder / name)
    return made


def box(top: int, bottom: int, left: int, right: int, side: int = 16) -> np.ndarray:
    hole = np.zeros((side, side), bool)
    hole[top:bottom, left:right] = True
    return hole


def test_a_hole_hides_what_it_touches_and_what_is_beside_that() -> None:
    assert inpainting.masked_positions(box(4, 8, 4, 8), (4, 4), 4, leak=0).nonzero() == (np.array([1]), np.array([1]))
    found = inpainting.masked_positions(box(7, 8, 0, 1), (4, 4), 4)
    assert np.array_equal(found, np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool))


def test_images_that_are_no_multiple_of_the_stride() -> None:
    assert inpainting.masked_positions(box(13, 14, 0, 1, side=14), (4, 4), 4, leak=0)[3, 0]


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        (np.zeros((16, 16), bool), "the mask is empty"),
        (np.ones((16, 16), bool), "the mask is all hole"),
        (box(1, 15, 1, 15), "the hole touches all 4x4 places"),
    ],
)
def test_holes_that_leave_nothing_to_do_or_to_go_by(hole: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inpainting.masked_positions(hole, (4, 4), 4)


@pytest.mark.parametrize("name", ["causal", "masked", "text", "labelled"])
def test_pixels_outside_the_hole_stay_and_versions_belong_to_their_numbers(priors, name: str) -> None:
    model, picture, hole = api.load(getattr(priors, name)), small_pictures(1)[0], box(0, 5, 0, 5)
    versions = model.fill(picture, hole, count=4, seed=1)
    assert versions.shape == (4, 16, 16, 3)
    assert all(np.array_equal(version[~hole], picture[~hole]) for version in versions)
    assert np.array_equal(model.fill(picture, hole, count=2, seed=1), versions[:2])
    assert not np.array_equal(model.fill(picture, hole, count=4, seed=2), versions)
    assert len({version.tobytes() for version in versions}) > 1


def test_what_lies_in_the_hole_does_not_matter(priors) -> None:
    model, picture, hole = api.load(priors.masked), small_pictures(1)[0], box(4, 8, 8, 12)
    other = picture.copy()
    other[hole] = 255 - other[hole]
    assert np.array_equal(model.fill(picture, hole), model.fill(other, hole))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 22), (5, 1)])
def test_a_hole_is_emptied_smoothly(height: int, width: int) -> None:
    """What is one colour stays so; the rest lies between the known values, near those beside it."""
    hole = np.zeros((height, width), bool)
    hole[1:4, : max(1, width - 4)] = True
    flat = np.full((height, width, 3), 70, np.uint8)
    flat[hole] = 255
    assert (inpainting.filled_from_surroundings(flat, hole) == 70).all()
    ramp = np.broadcast_to(np.linspace(10, 240, height)[:, None, None], (height, width, 4)).round().astype(np.uint8)
    found = inpainting.filled_from_surroundings(np.where(hole[..., None], np.uint8(0), ramp), hole)
    assert np.array_equal(found[~hole], ramp[~hole])
    assert 10 <= found.min() <= found.max() <= 240
    mean = ramp[~hole].mean()
    assert np.abs(found[hole].astype(float) - ramp[hole]).mean() < 0.7 * np.abs(mean - ramp[hole]).mean()


def test_labels_and_prompts_are_taken(priors) -> None:
    picture, hole = small_pictures(1)[0], box(0, 5, 0, 5)
    model = api.load(priors.labelled)
    assert model.fill(picture, hole, label="left", sampling=Sampling(guidance=2)).shape == (4, 16, 16, 3)
    assert api.load(priors.text).vary(picture, prompt="red disc").shape == (4, 16, 16, 3)
    with pytest.raises(ConfigError, match="knows no label 'up'"):
        model.fill(picture, hole, label="up")
    for name in ("labelled", "text"):
        with pytest.raises(ConfigError, match="guidance leads from any image to"):
            api.load(getattr(priors, name)).vary(picture, sampling=Sampling(guidance=2))


@pytest.mark.parametrize("name", ["causal", "masked"])
def test_varied_codes_are_as_many_as_the_strength_says(priors, name: str) -> None:
    model, picture = api.load(getattr(priors, name)), small_pictures(1)[0]
    tokenizer = model.module.tokenizer  # type: ignore[union-attr]
    from smalti.runtime.pixels import to_tensor

    codes = tokenizer.encode(to_tensor(picture[None].copy(), torch.device("cpu"))).codes
    torch.manual_seed(0)
    hidden = torch.rand(3, 4, 4) < 0.3
    drawn = inpainting.resample_codes(model.module, codes.expand(3, -1, -1, -1), hidden, seed=0, how=Sampling())  # type: ignore[arg-type]
    known = ~hidden[:, None].expand_as(drawn)
    assert torch.equal(drawn[known], codes.expand_as(drawn)[known])
    versions = model.vary(picture, strength=1.0, count=3)
    assert versions.shape == (3, 16, 16, 3)
    assert np.array_equal(model.vary(picture, strength=1.0, count=2), versions[:2])


def test_a_causal_prior_prefers_what_the_rest_goes_on_from(priors) -> None:
    """Candidates are taken as often as the known codes after the hole are likely."""
    generator = api.load(priors.causal).module
    assert isinstance(generator, ImagePrior)
    with torch.no_grad():
        strong(generator.prior).table.mul_(10)
    codes, hidden = torch.full((1, 1, 4, 4), 3), torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 1, 1:3] = True
    versions = 150
    chosen = inpainting.resample_codes(
        generator, codes.expand(versions, -1, -1, -1), hidden.expand(versions, -1, -1), seed=0, how=Sampling()
    )
    numbers = range(versions * inpainting.CANDIDATES)
    many = [part.expand(len(numbers), *part.shape[1:]) for part in (codes, hidden)]
    candidates = generator.draw(numbers, 0, Sampling(), codes=many[0], hidden=many[1])

    def known_bits(found: torch.Tensor) -> torch.Tensor:
        return likelihood.code_bits(generator, found)[:, 0].masked_fill(hidden, 0).sum(dim=(1, 2)).double()

    bits = known_bits(candidates).view(versions, inpainting.CANDIDATES)
    weights = torch.softmax(-bits * np.log(2), dim=1)
    expected, spread = (weights * bits).sum(1), (weights * bits.square()).sum(1)
    error = (spread - expected.square()).sum().sqrt() / versions
    assert known_bits(chosen).mean() == pytest.approx(float(expected.mean()), abs=4 * float(error))
    assert bits.mean() - expected.mean() > 6 * error, "so that taking any would be noticed"


def test_bits_are_those_of_the_logits(priors) -> None:
    generator = api.load(priors.causal).module
    codes = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    bits = likelihood.code_bits(generator, codes)  # type: ignore[arg-type]
    assert bits.shape == (1, 1, 4, 4)
    prior = generator.prior  # type: ignore[union-attr]
    logits = torch.log_softmax(prior.causal_logits(prior.tokens(codes), None), dim=3)
    torch.testing.assert_close(bits.flatten(), -logits[0, :, 0, 0] / np.log(2))


def test_likelihood_is_of_causal_priors(priors) -> None:
    pictures = small_pictures(5)
    codes, bits = api.load(priors.causal).code_bits(pictures)
    assert codes.shape == bits.shape == (5, 1, 4, 4)
    assert np.allclose(bits[:2], api.load(priors.causal).code_bits(pictures[:2])[1], atol=1e-4)
    with pytest.raises(ConfigError, match="a masked prior knows no likelihood of an image; train one"):
        api.load(priors.masked).code_bits(pictures)


def test_who_never_saw_an_image_without_its_label_needs_one(priors) -> None:
    model, picture = api.load(priors.sure), small_pictures(1)[0]
    said = "never saw an image without its label, "
    with pytest.raises(ConfigError, match=said + "so give the label"):
        model.fill(picture, box(4, 8, 4, 8))
    with pytest.raises(ConfigError, match=said + "so give the label"):
        model.vary(picture)
    with pytest.raises(ConfigError, match=said + "so its bits are those of images with it"):
        model.code_bits(picture[None])
    assert model.vary(picture, label="left", count=1).shape == (1, 16, 16, 3)
    assert model.code_bits(picture[None], labels=np.array([1]))[1].shape == (1, 1, 4, 4)


def test_a_seam_vanishes() -> None:
    """An offset between what was decoded and the original fades into the hole from its edge."""
    original = np.full((32, 32, 3), 100, np.uint8)
    decoded = np.full((1, 32, 32, 3), 140, np.uint8)
    hole = box(8, 24, 8, 24, side=32)
    (found,) = inpainting.blend(original, decoded, hole)
    line = found[16, 8:16, 0].astype(int)
    assert np.array_equal(found[~hole], original[~hole])
    assert abs(line[0] - 100) < 20
    assert abs(line[-1] - 140) < 8
    assert (np.diff(line) >= 0).all()


def test_without_an_offset_the_hole_is_what_was_decoded() -> None:
    chance = np.random.default_rng(0)
    original = chance.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    hole = box(4, 12, 4, 12)
    decoded = original[None].copy()
    decoded[0][hole] = chance.integers(0, 256, (hole.sum(), 3))
    assert np.array_equal(inpainting.blend(original, decoded, hole), decoded)


def test_images_and_masks_of_other_shapes(priors, trained) -> None:
    model, picture = api.load(priors.masked), small_pictures(1)[0]
    with pytest.raises(ConfigError, match=r"found an image of 16x12x3 \(uint8\); .* makes 16x16x3"):
        model.fill(picture[:, :12], box(0, 4, 0, 4))
    with pytest.raises(ConfigError, match=r"found a mask of 8x8 \(bool\); the model makes images of 16x16"):
        model.fill(picture, box(0, 4, 0, 4, side=8))
    with pytest.raises(ConfigError, match=r"found a mask of 16x16 \(uint8\); .*, and a mask is bool"):
        model.fill(picture, box(0, 4, 0, 4).astype(np.uint8))
    with pytest.raises(ConfigError, match="count is 0"):
        model.fill(picture, box(0, 4, 0, 4), count=0)
    with pytest.raises(ConfigError, match="there are no images whose bits could be counted"):
        api.load(priors.causal).code_bits(np.zeros((0, 16, 16, 3), np.uint8))
    for strength in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="strength is"):
            model.vary(picture, strength=strength)
    with pytest.raises(CheckpointError, match="is a gan, which knows no codes to go on from"):
        api.load_as(trained.gan, Prior).vary(picture)


def write_picture(path: Path, picture: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(picture).save(path)
    return path


def test_fill_and_vary_as_typed(smalti, priors, tmp_path: Path) -> None:
    from PIL import Image

    picture, hole = small_pictures(1)[0], box(0, 5, 0, 5)
    write_picture(tmp_path / "disc.png", picture)
    write_picture(tmp_path / "hole.png", np.where(hole, 255, 0).astype(np.uint8))
    done = smalti("fill", priors.masked, "disc.png", "--mask", "hole.png", "--count", 2, "--out", "filled")
    assert done.code == 0, done.err
    names = sorted(path.name for path in Path("filled").iterdir())
    assert names == ["disc.fill-0.png", "disc.fill-1.png", "disc.fill.png"]
    one = Image.open("filled/disc.fill-1.png")
    assert np.array_equal(np.asarray(one)[~hole], picture[~hole])
    assert one.text["smalti.mask"] == "hole.png"  # type: ignore[attr-defined]
    boxed = smalti("fill", priors.masked, "disc.png", "--mask", "0,0,5,5", "--count", 2, "--out", "boxed")
    assert boxed.code == 0, boxed.err
    assert Path("boxed/disc.fill-1.png").exists()
    assert np.array_equal(np.asarray(Image.open("boxed/disc.fill-1.png")), np.asarray(one))
    done = smalti("vary", priors.causal, "disc.png", "--strength", 0.5, "--count", 3, "--out", "varied")
    assert done.code == 0, done.err
    assert len(list(Path("varied").iterdir())) == 4


def test_a_bad_image_is_left_out_and_the_rest_is_filled(smalti, priors, tmp_path: Path) -> None:
    write_picture(tmp_path / "disc.png", small_pictures(1)[0])
    write_picture(tmp_path / "wide.png", np.zeros((16, 20, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ("--mask", "0,0,5,5", "--count", 1, "--out", "filled")
    done = smalti("fill", priors.masked, "broken.png", "wide.png", "disc.png", *words)
    assert done.code == 1
    assert "broken.png was left out" in done.err
    assert "wide.png was left out: it is 16x20, and the model makes 16x16; give --resize" in done.err
    assert Path("filled/disc.fill-0.png").exists()


def test_a_sheet_larger_than_one_file_holds(smalti, priors, tmp_path: Path, monkeypatch) -> None:
    write_picture(tmp_path / "disc.png", small_pictures(1)[0])
    monkeypatch.setattr("smalti.pipelines.limits.PIXEL_LIMIT", 3 * 16 * 16)
    words = ("fill", priors.masked, "disc.png", "--mask", "0,0,5,5", "--out", "filled")
    assert smalti(*words, "--count", 2).code == 0
    done = smalti(*words, "--count", 3, "--overwrite")
    assert done.code == 1
    assert "4 pictures of 16x16 are" in done.err
    assert "3 pictures; draw fewer at once, with another --seed each time" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fill", "MASKED", "disc.png", "--mask", "0,0,20,5", "--out", "x"), "does not lie inside images of 16x16"),
        (("fill", "MASKED", "disc.png", "--mask", "0,0,0,5", "--out", "x"), "does not lie inside images of 16x16"),
        (
            ("fill", "MASKED", "disc.png", "--mask", "none.png", "--out", "x"),
            "there is no mask none.png; give a picture",
        ),
        (
            ("fill", "MASKED", "disc.png", "--mask", "wide.png", "--out", "x"),
            "the mask wide.png is 16x20, and the model",
        ),
        (("fill", "MASKED", "disc.png", "--mask", "0,0,16,16", "--out", "x"), "the mask is all hole"),
        (("fill", "MASKED", "disc.png", "--mask", "black.png", "--out", "x"), "the mask is empty"),
        (("fill", "MASKED", "disc.png", "--mask", "0,0,5,5", "--count", "0", "--out", "x"), "--count is 0, but must"),
        (("fill", "MASKED", "--mask", "0,0,5,5", "--out", "x"), "no images were named"),
        (("fill", "GAN", "disc.png", "--mask", "0,0,5,5", "--out", "x"), "knows no codes to go on from"),
        (("vary", "MASKED", "disc.png", "--strength", "0", "--out", "x"), "strength is 0, but must be above 0"),
        (("vary", "SURE", "disc.png", "--out", "x"), "without its label, so give the label"),
        (("fill", "SURE", "disc.png", "--mask", "0,0,5,5", "--out", "x"), "without its label, so give the label"),
        (("vary", "MASKED", "disc.png", "--prompt", "cat", "--out", "x"), "was trained without captions"),
        (("vary", "MASKED", "disc.png", "--temperature", "-1", "--out", "x"), "temperature is -1, but must be from"),
    ],
)
def test_mistakes_are_told(smalti, priors, trained, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    write_picture(tmp_path / "disc.png", small_pictures(1)[0])
    write_picture(tmp_path / "wide.png", np.zeros((16, 20, 3), np.uint8))
    write_picture(tmp_path / "black.png", np.zeros((16, 16, 3), np.uint8))
    places = {"MASKED": priors.masked, "SURE": priors.sure, "GAN": trained.gan}
    done = smalti(*(places.get(word, word) for word in words))
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1, "told once, not of each image"
