"""`smalti restore` with every kind of file: depth, animations, resolution, odd sizes; and the page of --compare."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import pixels, settings, write_source

from smalti.data.pictures import read_picture


@pytest.fixture
def denoise(smalti, tmp_path: Path) -> Path:
    write_source(tmp_path / "discs.npz")
    done = smalti("train", "denoise", "--data", "discs.npz", "--out", "denoise", *settings("denoise"), "--quiet")
    assert done.code == 0, done.err
    return Path("denoise")


def test_16_bit_colours_keep_their_bits(smalti, denoise: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24, 4)).astype(np.uint16)
    Path("deep.png").write_bytes(codecs.png_encode(deep))
    done = smalti("restore", denoise, "deep.png", "--out", "out")
    assert done.code == 0, done.err
    found = read_picture("out/deep.png").pixels
    assert found.dtype == np.uint16
    # The network is untrained but for two steps, so colours stay near what they were; alpha stays exactly.
    assert len(np.unique(found[..., :3] % 257)) > 200
    assert np.array_equal(found[..., 3], deep[..., 3])


def test_an_animation_is_restored_frame_by_frame(smalti, denoise: Path) -> None:
    frames = [Image.fromarray(image) for image in pixels(3, side=24)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:], duration=[40, 80, 120], loop=0)
    frames[0].save("b.webp", save_all=True, append_images=frames[1:], duration=[40, 80, 120], lossless=True)
    done = smalti("restore", denoise, "a.gif", "b.webp", "--out", "out")
    assert done.code == 0, done.err
    for name in ("a.png", "b.webp"):
        with Image.open(Path("out") / name) as image:
            assert (image.n_frames, image.size) == (3, (24, 24))
            times = []
            for number in range(3):
                image.seek(number)
                image.load()
                times.append(image.info["duration"])
            assert times == [40, 80, 120]
    done = smalti("restore", denoise, "a.gif", "--out", "jpegs", "--format", "jpeg")
    assert done.code == 1
    assert "JPEG has no animations; choose png or webp" in done.err


def test_the_resolution_is_kept(smalti, denoise: Path) -> None:
    Image.fromarray(pixels(1, side=24)[0]).save("a.jpg", dpi=(300, 300))
    assert smalti("restore", denoise, "a.jpg", "--out", "out").code == 0
    with Image.open("out/a.jpg") as image:
        assert image.info["dpi"] == (300, 300)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA", "RGBA"])
def test_every_mode_is_taken(mode: str, smalti, denoise: Path) -> None:
    image = Image.fromarray(pixels(1, side=24)[0])
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(np.asarray(image.convert("L")).astype(kind))
    else:
        image = image.convert("RGB").convert(mode) if mode != "LAB" else _lab(image)
    image.save("x.tif")
    done = smalti("restore", denoise, "x.tif", "--out", "out")
    assert done.code == 0, done.err
    found = read_picture("out/x.png")
    assert found.pixels.shape[:2] == (24, 24)
    assert found.bit_depth == (16 if mode == "I;16" else 8)


def _lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert found is not None
    return found


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (700, 3)])
def test_odd_sizes(size: tuple[int, int], smalti, denoise: Path) -> None:
    Image.new("RGB", size, (90, 120, 30)).save("x.png")
    done = smalti("restore", denoise, "x.png", "--out", "out")
    assert done.code == 0, done.err
    with Image.open("out/x.png") as image:
        assert image.size == size


def test_a_picture_that_is_too_large_is_refused_before_memory_is_taken(smalti, denoise: Path) -> None:
    Image.new("1", (20_000, 20_000)).save("huge.png")  # 50 kB
    done = smalti("restore", denoise, "huge.png", "--out", "out")
    assert done.code == 1
    assert "huge.png: declares 20000x20000 pixels, the limit is 134,217,728; shrink it first" in done.err


def test_another_limit_is_taken(smalti, denoise: Path) -> None:
    Image.new("1", (20_000, 20_000)).save("huge.png")
    done = smalti("restore", denoise, "huge.png", "--out", "out", "--pixel-limit", "100000000")
    assert done.code == 1
    assert "huge.png: declares 20000x20000 pixels, the limit is 100,000,000; shrink it first" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(smalti, denoise: Path) -> None:
    Image.new("RGB", (24, 24)).save("x.png")
    Path("out").mkdir(mode=0o500)
    done = smalti("restore", denoise, "x.png", "--out", "out")
    assert done.code == 1
    assert "permission" in done.err.lower()


def test_a_file_in_the_way_of_a_folder(smalti, denoise: Path) -> None:
    Image.new("RGB", (24, 24)).save("x.png")
    Path("file").write_text("in the way")
    done = smalti("restore", denoise, "x.png", "--out", "file/out")
    assert done.code == 1
    assert "file" in done.err
    assert done.err.count("\n") <= 2, done.err


def test_models_of_another_kind_are_named(smalti, denoise: Path) -> None:
    words = ("train", "vqvae", "--data", "discs.npz", "--out", "vqvae", *settings("vqvae"), "--quiet")
    assert smalti(*words).code == 0
    Image.new("RGB", (24, 24)).save("x.png")
    done = smalti("restore", "vqvae", "x.png", "--out", "out")
    assert done.code == 1
    assert "cannot restore pictures; give a model trained with a preset such as denoise" in done.err


def test_a_page_shows_before_and_after(smalti, denoise: Path) -> None:
    for number, image in enumerate(pixels(3, side=24)):
        for folder in ("clean", "noisy"):
            Path(folder, "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"clean/a/{number}.webp", lossless=True)
        Image.fromarray(np.clip(image.astype(int) + 9, 0, 255).astype(np.uint8)).save(f"noisy/a/{number}.png")
    Path("clean/a/2.webp").unlink()
    words = ("restore", denoise, "noisy", "--out", "out", "--compare", "page.html", "--reference", "clean")
    done = smalti(*words)
    assert done.code == 0, done.err
    page = Path("page.html").read_text()
    assert page.count("<img") == 3
    assert "trained to undo" in page
    assert "a/2.png has no figures: there is no reference clean/a/2.png for it" in page
    assert page.count('<td class="number">') == 3 * 4  # the mean and two pictures
    done = smalti(*words)
    assert done.code == 1
    assert "page.html is already there" in done.err
    Path("page.html").unlink()
    assert smalti(*words).code == 0  # of pictures that are there already, too
    assert Path("page.html").read_text() == page


def test_mistakes_about_the_page(smalti, denoise: Path) -> None:
    Image.new("RGB", (24, 24)).save("x.png")
    for words, said in (
        (("--compare", "page.txt"), "--compare is page.txt, but the page is HTML; give a name that ends in .html"),
        (("--reference", "x.png"), "--reference is for the page; give --compare a name that ends in .html"),
        (("--compare", "page.html", "--reference", "nowhere"), "there is no nowhere; give --reference a picture"),
    ):
        done = smalti("restore", denoise, "x.png", "--out", "out", *words)
        assert done.code == 1, words
        assert said in done.err
