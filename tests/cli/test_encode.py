"""From pictures to codes to a prior to new pictures, as typed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_codes import small_codes, small_pictures
from small_runs import settings, small_config, write_source

from smalti.data.codes import TOKENIZER, open_codes
from smalti.errors import CheckpointError, ConfigError, DataError
from smalti.pipelines import base as api
from smalti.runtime.device import Machine
from smalti.training.loop import train


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Priors of the same codes: without condition, with labels, with text."""
    folder = tmp_path_factory.mktemp("priors")
    made = SimpleNamespace(codes=folder / "codes")
    codes = small_codes(folder)
    for name, preset, extra in (
        ("plain", "prior-nano", ()),
        ("masked", "maskgit-small", ()),
        ("labelled", "prior-nano", ("model.condition=class",)),
        ("text", "text-emoji", ()),
        ("sure", "text-emoji", ("model.condition_dropout=0",)),
    ):
        held_out = open_codes(folder / "codes", "test")
        train(small_config(preset, *extra), codes, folder / name, held_out=held_out, machine=Machine("cpu", "float32"))
        setattr(made, name, folder / name)
    return made


def test_a_source_becomes_codes_and_comes_back(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    done = smalti("encode", trained.vqvae, trained.source, "--out", "codes")
    assert done.code == 0, done.err
    assert "40 images, 64 bits each: codes/all" in done.err
    assert "smalti train prior-nano --data codes" in done.err
    codes, model = open_codes("codes"), api.load(trained.vqvae)
    assert codes.about.tokenizer == model.card.digest
    assert codes.classes == ("0", "1")
    pixels = np.load(trained.source)["images"]
    assert np.array_equal(codes.codes, model.encode(pixels))
    again = smalti("encode", trained.vqvae, trained.source, "--out", "codes")
    assert again.code == 0
    assert "codes/all holds these codes already" in again.err

    assert smalti("decode", "codes", "--out", "back", "--first", 3, "--count", 2).code == 0
    assert sorted(path.name for path in Path("back").iterdir()) == ["000003.png", "000004.png"]
    picture = np.asarray(Image.open("back/000003.png"))
    assert np.array_equal(picture, model.reconstruct(pixels[3:4])[0])
    assert smalti("decode", "codes", "--out", "back", "--count", 2).err.startswith("smalti: error: back holds numbered")
    assert smalti("decode", "codes", "--out", "grid.png").code == 0

    words = settings("prior-nano")
    done = smalti("train", "prior-nano", "--data", "codes", "--out", "prior", *words)
    assert done.code == 0, done.err
    assert "40 codes of images of 16x16x3 from codes; recipe prior" in done.err
    done = smalti("generate", "prior", "--count", 3, "--out", "new")
    assert done.code == 0, done.err
    assert len(list(Path("new").iterdir())) == 3
    assert api.load("prior").card.tokenizer.digest == model.card.digest  # type: ignore[union-attr]
    assert "tokenizer" in smalti("info", "prior").out


def test_mirrored_images_follow(smalti, trained: SimpleNamespace) -> None:
    assert smalti("encode", trained.vqvae, trained.source, "--out", "codes", "--flip").code == 0
    codes, pixels = open_codes("codes"), np.load(trained.source)["images"]
    assert len(codes) == 80
    assert codes.about.names[40] == f"{codes.about.names[0]} (mirrored)"
    assert np.array_equal(codes.codes[40:], api.load(trained.vqvae).encode(pixels[:, :, ::-1].copy()))


def test_every_split_has_a_folder_and_the_other_one_is_held_out(smalti, trained: SimpleNamespace) -> None:
    for split in ("train", "test"):
        for number in range(4):
            Path(f"pictures/{split}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(f"pictures/{split}/{number}.png")
    done = smalti("encode", trained.vqvae, "pictures", "--out", "codes", "--flip")
    assert done.code == 0, done.err
    assert (len(open_codes("codes")), len(open_codes("codes", "test"))) == (8, 4)
    done = smalti("train", "prior-nano", "--data", "codes", "--out", "prior", *settings("prior-nano"))
    assert done.code == 0, done.err
    assert "on 4 held-out images" in done.err


def test_codes_do_not_go_where_other_things_are(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    done = smalti("encode", trained.vqvae, trained.source, "--out", "mine")
    assert done.code == 1
    assert done.err == "smalti: error: mine holds other things than codes; give --out a new folder\n"
    small_codes(tmp_path)
    done = smalti("encode", trained.vqvae, trained.source, "--out", "codes")
    assert "codes holds codes of the tokenizer" in done.err
    assert "give another --out" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("encode", "GAN", "SOURCE", "--out", "x"), "is a gan, which cannot reconstruct images"),
        (("encode", "VQ", "SOURCE", "--out", "x", "--effort", "-1"), "effort is -1"),
        (("encode", "VQ", "nowhere", "--out", "x"), "nowhere"),
        (("decode", "nowhere", "--out", "x"), "nowhere holds no codes; write some with smalti encode"),
        (("decode", "CODES", "--out", "x", "--first", "40"), "--first is 40, but"),
        (("decode", "CODES", "--out", "x", "--count", "0"), "--count is 0, but must be from 1 to 40"),
        (("decode", "CODES", "--out", "x", "--split", "val"), "has no split 'val'; it has train, test"),
        (
            ("train", "vqvae", "--data", "CODES", "--out", "x"),
            "holds codes, which the recipe prior learns; vqvae learns",
        ),
        (("train", "prior-nano", "--data", "SOURCE", "--out", "x"), "holds images; write codes with smalti encode"),
        (("train", "prior-nano", "--data", "CODES", "--size", "8", "--out", "x"), "give --size to smalti encode"),
        (
            ("train", "prior-nano", "--data", "CODES", "--held-out", "SOURCE", "--out", "x"),
            "holds no codes, which --data",
        ),
    ],
)
def test_mistakes_are_one_line(smalti, trained, priors, words: tuple[str, ...], said: str) -> None:
    places = {"GAN": trained.gan, "VQ": trained.vqvae, "SOURCE": trained.source, "CODES": priors.codes}
    done = smalti(*(places.get(word, word) for word in words))
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def test_codes_of_another_tokenizer_are_named(smalti, tmp_path: Path) -> None:
    from small_codes import write_tokenizer

    small_codes(tmp_path)
    card = write_tokenizer(tmp_path / "codes" / TOKENIZER, seed=1)
    for words in (
        ("decode", "codes", "--out", "x"),
        ("train", "prior-nano", "--data", "codes", "--out", "y", *settings("prior-nano")),
    ):
        done = smalti(*words)
        assert done.code == 1
        assert "the codes in codes are of the tokenizer" in done.err
        assert card.digest[:16] in done.err


def test_codes_of_a_grid_that_images_cannot_have_are_not_decoded(smalti, tmp_path: Path) -> None:
    import json

    small_codes(tmp_path)
    place = tmp_path / "codes" / "test"
    plain = json.loads((place / "index.json").read_text())
    (place / "index.json").write_text(json.dumps(plain | {"grid": [2, 4000]}))
    np.save(place / "codes.npy", np.zeros((len(plain["names"]), 1, 2, 4000), np.int16))
    done = smalti("decode", "codes", "--split", "test", "--out", "x")
    assert done.code == 1
    assert "the index of codes does not fit its tokenizer: 1 planes of codes on (2, 4000), for 1 on (4, 4)" in done.err
    assert not Path("x").exists()


def test_large_images_are_encoded_a_few_at_a_time(smalti, trained: SimpleNamespace, tmp_path, monkeypatch) -> None:
    taken, encode = [], api.Model.encode

    def watched(self: api.Model, images: np.ndarray, **options) -> np.ndarray:
        taken.append(len(images))
        return encode(self, images, **options)

    monkeypatch.setattr(api.Model, "encode", watched)
    monkeypatch.setattr("smalti.cli.generate.CHUNK_PIXELS", 3 * 16 * 16)
    write_source(tmp_path / "new.npz", count=8)
    done = smalti("encode", trained.vqvae, "new.npz", "--out", "few")
    assert done.code == 0, done.err
    assert taken == [3, 3, 2]
    done = smalti("decode", "few", "--out", "decoded")
    assert done.code == 0, done.err
    assert len(list(Path("decoded").glob("*.png"))) == 8


@pytest.mark.parametrize("name", ["plain", "masked", "labelled", "text"])
def test_an_image_is_the_same_in_any_company(priors, name: str) -> None:
    model = api.load(getattr(priors, name))
    whole = model.generate(64, seed=3)
    assert whole.shape == (64, 16, 16, 3)
    assert np.array_equal(model.generate(1, seed=3), whole[:1])
    assert np.array_equal(model.generate(7, seed=3), whole[:7])
    assert np.array_equal(model.generate(5, seed=3, first=20), whole[20:25])
    assert not np.array_equal(model.generate(64, seed=4), whole)


def test_a_label_a_prompt_and_how_codes_are_drawn(smalti, priors) -> None:
    for words in (
        ("LABELLED", "--label", "left", "--guidance", 2.0),
        ("TEXT", "--prompt", "red disc", "--guidance", 3.0, "--temperature", 0.7, "--top-k", 4, "--top-p", 0.9),
        ("MASKED", "--steps", 4),
    ):
        run, *rest = words
        out = f"{run}.png"
        done = smalti("generate", getattr(priors, run.lower()), *rest, "--count", 4, "--out", out)
        assert done.code == 0, done.err
        text = Image.open(out).text  # type: ignore[attr-defined]
        for option, value in zip(rest[::2], rest[1::2], strict=True):
            assert text[f"smalti.{str(option)[2:].replace('-', '_')}"] == str(value)


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("plain", ("--prompt", "apple"), "was trained without captions, so a prompt means nothing to it"),
        ("plain", ("--label", "left"), "was trained without labels, so --label left means nothing to it"),
        ("labelled", ("--label", "up"), "knows no label 'up'"),
        ("plain", ("--guidance", "2"), "guidance has nothing to go by"),
        ("sure", ("--guidance", "2"), "was trained with model.condition_dropout=0"),
        ("text", ("--guidance", "2"), "guidance leads from any image to what a prompt says; give a prompt, or no"),
        ("plain", ("--truncation", "0.5"), "has no latents to truncate; lower the temperature"),
        ("plain", ("--temperature", "-1"), "temperature is -1, but must be from 0 to 100"),
        ("plain", ("--top-p", "2"), "top_p is 2, but must be from"),
        ("plain", ("--interpolate", "1,2"), "which has no latents to walk between"),
        ("plain", ("--count", "0"), "--count is 0, but must be from 1"),
        ("gan", ("--prompt", "apple"), "is a GAN; prompt, temperature"),
        ("gan", ("--temperature", "1"), "is a GAN; prompt, temperature"),
    ],
)
def test_what_a_model_does_not_know(smalti, trained, priors, run: str, words: tuple[str, ...], said: str) -> None:
    place = trained.gan if run == "gan" else getattr(priors, run)
    done = smalti("generate", place, *words, "--out", "new.png")
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not Path("new.png").exists()


def test_a_prior_is_no_autoencoder(priors) -> None:
    with pytest.raises(CheckpointError, match="is a prior, which cannot reconstruct images"):
        api.load(priors.plain).encode(np.zeros((1, 16, 16, 3), np.uint8))


def test_a_training_on_other_codes_is_not_continued(smalti, tmp_path: Path) -> None:
    small_codes(tmp_path)
    words = ("train", "prior-nano", "--data", "codes", "--out", "run", *settings("prior-nano"))
    assert smalti(*words).code == 0
    small_codes(tmp_path, seed=5)
    done = smalti(*words, "--set", "train.images=96")
    assert done.code == 1
    assert "are not those run was trained on" in done.err


def test_the_source_is_written_without_its_place(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    other = write_source(tmp_path / "deep" / "down" / "discs.npz")
    assert smalti("encode", trained.vqvae, other, "--out", "codes").code == 0
    assert "deep" not in Path("codes/all/index.json").read_text()


def test_bits_are_counted(smalti, trained: SimpleNamespace, priors, tmp_path: Path) -> None:
    import json

    write_source(tmp_path / "new.npz", count=20)
    done = smalti("evaluate", "prior", priors.labelled, "--on", "new.npz", "--out", "p.json", "--report", "p.html")
    assert done.code == 0, done.err
    record = json.loads(Path("p.json").read_text())
    figures = {figure["name"]: figure for figure in record["figures"]}
    model = api.load(priors.labelled)
    _, bits = model.code_bits(np.load("new.npz")["images"])
    assert figures["bits_per_code"]["value"] == pytest.approx(float(bits.mean()), rel=1e-3)
    assert figures["bits_per_code"]["low"] <= figures["bits_per_code"]["value"] <= figures["bits_per_code"]["high"]
    assert figures["bits_per_dimension"]["value"] == pytest.approx(figures["bits_per_code"]["value"] * 16 / 768)
    assert figures["bits_per_code"]["note"] == "3 if uniform"
    assert {"rate_bpp", "entropy_bpp", "perplexity"} <= set(figures)
    page = Path("p.html").read_text()
    assert "held out, averaged weights" in page
    assert "Drawn by the prior" in page


def write_discs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in a folder for each class of `small_codes`; what is in them."""
    pixels, labels = small_pictures(20), np.arange(20) % 2
    for label, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for number in np.flatnonzero(labels == label):
            Image.fromarray(pixels[number]).save(folder / name / f"{number}.png")
    return pixels, labels


def test_bits_with_the_labels_and_without_captions(smalti, priors, tmp_path: Path, monkeypatch) -> None:
    import json

    pixels, labels = write_discs(tmp_path / "discs")
    taken, code_bits = [], api.Model.code_bits

    def watched(self: api.Model, images: np.ndarray, *, labels: np.ndarray | None = None) -> tuple:
        taken.append(labels)
        return code_bits(self, images, labels=labels)

    monkeypatch.setattr(api.Model, "code_bits", watched)
    done = smalti("evaluate", "prior", priors.labelled, "--on", "discs", "--out", "p.json")
    assert done.code == 0, done.err
    record = json.loads(Path("p.json").read_text())
    assert sorted(taken.pop()) == sorted(labels)
    known = code_bits(api.load(priors.labelled), pixels, labels=labels)[1].mean()
    assert record["figures"][0]["value"] == pytest.approx(float(known), rel=1e-4)
    assert record["protocol"]["labels"] is True
    done = smalti("evaluate", "prior", priors.text, "--on", "discs", "--out", "t.json")
    assert done.code == 0, done.err
    assert taken == [None]
    assert "knows captions, but these are the bits without any" in done.err


def test_a_classifier_learns_from_a_prior_with_labels(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    write_discs(tmp_path / "discs")
    words = ("--against", "discs", "--features", "smalti-vit", "--weights", trained.eye, "--count", 20)
    words += ("--classifier-images", 64, "--out", "g.json")
    done = smalti("evaluate", "generator", priors.plain, *words)
    assert done.code == 1
    assert "leave --classifier-images out, or train with --set model.condition=class" in done.err
    done = smalti("evaluate", "generator", priors.labelled, *words)
    assert done.code == 0, done.err
    assert "classification_accuracy_score" in Path("g.json").read_text()


def test_codes_are_not_mirrored_while_they_are_learned(smalti, priors) -> None:
    for word in (("--flip",), ("--resize", "stretch")):
        done = smalti("train", "prior-nano", "--data", priors.codes, "--out", "run", *word, *settings("prior-nano"))
        assert done.code == 1
        assert "codes can be neither mirrored nor resized; give --flip and --resize to smalti encode" in done.err
    assert not Path("run").exists()
    assert not api.load(priors.plain).card.config.data.flip


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("masked", ("--on", "new.npz"), "a masked prior knows no likelihood"),
        (
            "plain",
            ("--on", "new.npz", "--size", "8"),
            "makes images of 16x16x3, but new.npz holds 8x8x3; give --size 16",
        ),
        ("gan", ("--on", "new.npz"), "knows no codes to go on from"),
    ],
)
def test_bits_that_cannot_be_counted(smalti, trained, priors, tmp_path: Path, run, words, said: str) -> None:
    write_source(tmp_path / "new.npz", count=4)
    place = trained.gan if run == "gan" else getattr(priors, run)
    done = smalti("evaluate", "prior", place, *words, "--out", "p.json")
    assert done.code == 1
    assert said in done.err


def test_a_prior_is_scored_as_a_generator(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    write_source(tmp_path / "new.npz", count=20)
    words = ("--against", "new.npz", "--features", "smalti-vit", "--weights", trained.eye, "--count", 20)
    done = smalti("evaluate", "generator", priors.plain, *words, "--out", "g.json")
    assert done.code == 0, done.err
    assert "frechet_distance" in Path("g.json").read_text()


def test_a_killed_encoding_goes_on(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    """SIGKILL while codes are written; the same command again ends with the codes of an unbroken encoding."""
    import signal
    import subprocess
    import sys
    import time

    write_source(tmp_path / "many.npz", count=6000)
    words = ["encode", str(trained.vqvae), "many.npz", "--out"]
    running = subprocess.Popen([sys.executable, "-m", "smalti", *words, "broken"], cwd=tmp_path, stderr=subprocess.PIPE)
    partial = tmp_path / "broken" / "all" / "codes.npy.partial"
    for _ in range(3000):
        if (partial.exists() and partial.stat().st_size > 20_000) or running.poll() is not None:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / "broken" / "all" / "index.json").exists(), "it was too fast to be killed"
    done = partial.stat().st_size
    for out in ("broken", "whole"):
        assert smalti(*words, out).code == 0
    broken, whole = open_codes(tmp_path / "broken"), open_codes(tmp_path / "whole")
    assert done < whole.codes.nbytes
    assert broken.fingerprint == whole.fingerprint


def test_held_out_codes_must_have_what_the_condition_needs(tmp_path: Path) -> None:
    import dataclasses

    codes = small_codes(tmp_path)
    held_out = open_codes(tmp_path / "codes", "test")
    machine = Machine("cpu", "float32")
    for preset, change, said in (
        ("text-emoji", {"captions": None}, "have no captions, which model.condition=text needs"),
        ("prior-nano", {"classes": ("up", "down")}, "have the classes up, down, those to train on left, right"),
        (
            "prior-nano",
            {"codebook_sizes": (8, 8, 8)},
            "the number of planes of the held-out codes of discs is 3, of those",
        ),
        ("prior-nano", {"codebook_sizes": (9,)}, r"the alphabet of the held-out codes of discs is \(9,\), of those to"),
        ("prior-nano", {"grid": (2, 8)}, r"the grid of the held-out codes of discs is \(2, 8\), of those to train on"),
        ("prior-nano", {"tokenizer": "b" * 64}, "the tokenizer of the held-out codes of discs is bbbbbbbbbbbbbbbb, of"),
    ):
        about = dataclasses.replace(held_out.about, **change)
        other = type(held_out)(about, held_out.codes, held_out.labels, held_out.folder)
        config = small_config(preset, *(("model.condition=class",) if preset == "prior-nano" else ()))
        with pytest.raises(DataError, match=said):
            train(config, codes, tmp_path / preset, held_out=other, machine=machine)
    nameless = type(codes)(codes.about, codes.codes, None, codes.folder)
    with pytest.raises(ConfigError, match=r"model\.condition is class, but the codes have no labels"):
        train(small_config("prior-nano", "model.condition=class"), nameless, tmp_path / "y", machine=machine)
    about = dataclasses.replace(codes.about, codebook_sizes=(4,))
    with pytest.raises(DataError, match="does not fit its tokenizer"):
        train(small_config("prior-nano"), type(codes)(about, codes.codes, codes.labels, codes.folder), tmp_path / "x",
              machine=machine)  # fmt: skip


def test_a_training_that_gets_no_better_ends_and_says_so(smalti, priors) -> None:
    words = settings("prior-nano", "model.patience=1", "train.images=640", "model.optimizer.learning_rate=0")
    done = smalti("train", "prior-nano", "--data", priors.codes, "--out", "run", *words)
    assert done.code == 0, done.err
    assert "it learned enough: 1 scores in a row were no better than the best one (model.patience)" in done.err
    assert api.load("run").card.images_seen < 640


def test_options_of_other_pictures_are_refused(smalti, priors, trained: SimpleNamespace, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    for words, said in (
        (("generate", priors.plain, "--steps", "5", "--out", "g.png"), "draws code after code, so there are no steps"),
        (("generate", priors.sure, "--out", "g.png"), "never saw an image without its caption, so give a prompt"),
        (("generate", trained.gan, "--interpolate", "1,2", "--prompt", "a", "--out", "g.png"), "do not go with"),
    ):
        done = smalti(*words)
        assert done.code == 1
        assert said in done.err
        assert done.err.count("\n") == 1


def test_images_that_were_trained_on_are_told(smalti, trained: SimpleNamespace) -> None:
    assert smalti("encode", trained.vqvae, trained.source, "--out", "codes").code == 0
    assert smalti("train", "prior-nano", "--data", "codes", "--out", "run", *settings("prior-nano")).code == 0
    done = smalti("evaluate", "prior", "run", "--on", trained.source, "--out", "p.json")
    assert done.code == 0, done.err
    assert "was trained on the very images it is judged on" in done.err


def test_a_prompt_may_hold_any_bytes(priors) -> None:
    assert api.load(priors.text).generate(1, prompt="\udcff apple").shape == (1, 16, 16, 3)


@pytest.mark.parametrize("option", ["--truncation", "--interpolate", "--mix"])
def test_parts_are_not_drawn_from_latents(smalti, priors, option: str) -> None:
    done = smalti("vary", priors.plain, "a.png", option, "0.5", "--out", "v")
    assert done.code != 0
    assert option in done.err
    assert not Path("v").exists()
