"""`smalti evaluate` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import one_line
from PIL import Image
from small_runs import pixels, write_source


def eye(trained: SimpleNamespace) -> tuple[object, ...]:
    return ("--features", "smalti-vit", "--weights", trained.eye)


def folder(place: Path, *, count: int = 12, side: int = 16, seed: int = 0, channels: int = 3) -> Path:
    for number, picture in enumerate(pixels(count, side=side, seed=seed, channels=channels)):
        path = place / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze()).save(path)
    return place


def test_a_generator_is_scored_into_a_record_a_table_and_a_page(smalti, trained: SimpleNamespace) -> None:
    np.savez("new.npz", images=pixels(40, seed=1))
    done = smalti(
        "evaluate", "generator", trained.gan, "--against", "new.npz", "--training", trained.source, "--count", 40,
        *eye(trained), "--out", "gan.json", "--report", "gan.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    for word in ("FD (smalti-vit", "KID", "precision", "coverage", "authenticity", "copied share"):
        assert word in done.out
    record = json.loads(Path("gan.json").read_text(encoding="utf-8"))
    assert record["protocol"]["judged_count"] == 40
    assert record["protocol"]["extractor"]["name"] == "smalti-vit"
    page = Path("gan.html").read_text(encoding="utf-8")
    assert "Nearest training images" in page
    assert page.count("<img") >= 3


def test_two_folders_and_their_comparison(smalti, trained: SimpleNamespace) -> None:
    a, b, reference = folder(Path("a")), folder(Path("b"), seed=1), folder(Path("reference"), seed=2)
    for name in (a, b):
        done = smalti("evaluate", "folder", name, "--against", reference, *eye(trained), "--out", f"{name}.json")
        assert done.code == 0, done.err
        assert "warning: 12 images are no more than the" in done.err
    compared = smalti("evaluate", "compare", "a.json", "b.json")
    assert compared.code == 0, compared.err
    assert "B - A" in compared.out
    assert "FD (smalti-vit" in compared.out


def test_unlike_protocols_are_not_compared(smalti, trained: SimpleNamespace) -> None:
    a, reference = folder(Path("a")), folder(Path("reference"), seed=2)
    words = ("evaluate", "folder", a, "--against", reference, *eye(trained))
    assert smalti(*words, "--out", "a.json").code == 0
    assert smalti(*words, "--feature-size", 16, "--neighbours", 3, "--out", "b.json").code in (0, 1)
    assert smalti(*words, "--neighbours", 3, "--out", "c.json").code == 0
    said = one_line(smalti("evaluate", "compare", "a.json", "c.json"))
    assert "cannot be compared" in said
    assert "neighbours" in said


def test_an_autoencoder_and_an_encoder(smalti, trained: SimpleNamespace) -> None:
    write_source(Path("new.npz"))
    done = smalti("evaluate", "autoencoder", trained.vqvae, "--on", "new.npz", *eye(trained), "--report", "vq.html")
    assert done.code == 0, done.err
    for word in ("PSNR", "SSIM", "perplexity", "bpp"):
        assert word in done.out
    assert Path("evaluation.json").exists()
    for split, seed in (("train", 0), ("test", 1)):
        for number, picture in enumerate(pixels(20, seed=seed)):
            path = Path("sorted") / split / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    done = smalti("evaluate", "encoder", trained.eye, "--on", "sorted", "--out", "eye.json")
    assert done.code == 0, done.err
    assert "linear probe accuracy" in done.out
    assert "class1" in done.out


def test_the_doctor_says_what_it_tried(smalti, trained: SimpleNamespace) -> None:
    done = smalti("evaluate", "doctor", "--on", "emoji", "--size", 16, "--channels", 3, "--count", 400, *eye(trained))
    assert "as theory says" in done.out
    assert "verdict" in done.out
    assert done.code in (0, 1)
    assert not done.err


def test_nothing_is_written_over_unasked(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    Path("mine.json").write_text("mine")
    words = ("evaluate", "folder", a, "--against", a, *eye(trained), "--out", "mine.json")
    assert "already there" in one_line(smalti(*words))
    assert Path("mine.json").read_text() == "mine"
    assert smalti(*words, "--overwrite").code == 0
    assert "mine.html" not in {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("folder", "a", "--against", "large"), "bring both to one shape with --size"),
        (("folder", "a", "--against", "grey"), "--channels"),
        (("folder", "a", "--against", "one"), "holds 1 image; a distribution needs 2"),
        (("folder", "a", "--against", "nowhere"), "nowhere"),
        (("folder", "a", "--against", "a", "--out", "a.txt"), "ends in .json"),
        (("folder", "a", "--against", "a", "--out", "none/a.json"), "no folder"),
        (("folder", "a", "--against", "a", "--out", "a.json", "--report", "a.json"), "ends in .html"),
        (("folder", "a", "--against", "a", "--out", "folder.json", "--overwrite"), "is a folder"),
        (("folder", "a", "--against", "a", "--neighbours", "0"), "--neighbours is 0"),
        (("folder", "a", "--against", "a", "--seed", "-1"), "--seed is -1"),
        (("generator", "nowhere", "--against", "a"), "nowhere"),
        (("generator", "GAN", "--against", "a", "--count", "1"), "--count is 1"),
        (("generator", "GAN", "--against", "a", "--classifier-images", "100", "--count", "8"), "without labels"),
        (("generator", "VQ", "--against", "a"), "draws no new images"),
        (("autoencoder", "GAN", "--on", "a"), "cannot reconstruct"),
        (("encoder", "--on", "a"), "has no training split beside"),
        (("encoder", "--on", "sorted"), "two classes or more"),
        (("encoder", "GAN", "--on", "sorted"), "gan"),
        (("doctor", "--on", "a", "--count", "3"), "too few to see"),
        (("doctor", "--on", "a", "--seed", "-1"), "--seed is -1"),
    ],
)
def test_mistakes_in_one_line(smalti, trained: SimpleNamespace, words: tuple[str, ...], expected: str) -> None:
    folder(Path("a"))
    folder(Path("large"), side=20)
    folder(Path("grey"), channels=1)
    folder(Path("one"), count=1)
    Path("folder.json").mkdir()
    for split in ("train", "test"):
        folder(Path("sorted") / split / "x")
    typed = [{"GAN": trained.gan, "VQ": trained.vqvae}.get(word, word) for word in words]
    more = () if words[:2] == ("encoder", "GAN") else eye(trained)
    assert expected in one_line(smalti("evaluate", *typed, *more))
    assert not Path("evaluation.json").exists()


def test_weights_that_are_not_what_they_should_be(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    words = ("evaluate", "folder", a, "--against", a, "--features")
    Path("inception.pth").write_bytes(b"not these")
    assert "SHA-256" in one_line(smalti(*words, "inception", "--weights", "inception.pth"))
    assert "--download" in one_line(smalti(*words, "inception"))
    said = one_line(smalti(*words, "smalti-vit", "--weights", trained.gan))
    assert "gan" in said
    broken = Path("cut.safetensors")
    broken.write_bytes((trained.eye / "last.safetensors").read_bytes()[:-100])
    assert "cut short" in one_line(smalti(*words, "smalti-vit", "--weights", broken))


def test_a_split_is_that_of_the_sources_that_have_splits(smalti, trained: SimpleNamespace) -> None:
    """Plain folders are scored whole, and training images come from a training split, whatever --split says."""
    plain = folder(Path("plain"))
    for number, split in enumerate(("train", "test")):
        for kind in ("x", "y"):
            folder(Path("sorted") / split / kind, seed=number + 1)
    words = ("evaluate", "folder", plain, *eye(trained), "--against")
    done = smalti(*words, "sorted", "--split", "train", "--out", "a.json")
    assert done.code == 0, done.err
    record = json.loads(Path("a.json").read_text(encoding="utf-8"))
    assert (record["subject"]["split"], record["reference"]["split"]) == (None, "train")
    for training in ("plain", "sorted"):
        done = smalti(
            "evaluate", "folder", "sorted", "--against", "sorted", "--split", "test", "--training", training,
            *eye(trained), "--out", f"{training}.json",
        )  # fmt: skip
        assert done.code == 0, done.err
        record = json.loads(Path(f"{training}.json").read_text(encoding="utf-8"))
        assert record["protocol"]["training_fingerprint"] != record["protocol"]["reference_fingerprint"]
    assert "no split 'val'" in one_line(smalti(*words, "sorted", "--split", "val", "--out", "b.json"))


def test_a_broken_image_is_said_and_the_rest_is_measured(smalti, trained: SimpleNamespace) -> None:
    a = folder(Path("a"))
    (a / "broken.png").write_bytes((a / "000.png").read_bytes()[:40])
    done = smalti("evaluate", "folder", a, "--against", folder(Path("b"), seed=1), *eye(trained))
    assert done.code == 0, done.err
    assert "skipped 1 of 13 files of a: broken.png" in done.err
    assert json.loads(Path("evaluation.json").read_text(encoding="utf-8"))["protocol"]["judged_count"] == 12


def test_a_source_with_a_val_and_a_test_split_is_measured_on_test(smalti, trained: SimpleNamespace) -> None:
    for split, seed in (("val", 1), ("test", 2)):
        folder(Path("halves") / split, seed=seed, count=10 + seed)
    done = smalti("evaluate", "folder", folder(Path("a")), "--against", "halves", *eye(trained))
    assert done.code == 0, done.err
    reference = json.loads(Path("evaluation.json").read_text(encoding="utf-8"))["reference"]
    assert (reference["split"], reference["count"]) == ("test", 12)


def test_equal_images_everywhere_are_measured_without_a_fuss(smalti, trained: SimpleNamespace) -> None:
    """No variance at all: the distance is 0 and no figure is NaN."""
    place = Path("flat")
    place.mkdir()
    for number in range(6):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(place / f"{number}.png")
    done = smalti("evaluate", "folder", place, "--against", place, *eye(trained), "--out", "flat.json")
    assert done.code == 0, done.err
    figures = {f["name"]: f["value"] for f in json.loads(Path("flat.json").read_text(encoding="utf-8"))["figures"]}
    assert figures["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert all(isinstance(value, float | int) for value in figures.values()), figures
