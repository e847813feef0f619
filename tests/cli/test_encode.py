"""`smalti encode`: images to codes, and from these to a prior and to new images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_codes import small_codes
from small_runs import settings, write_source

from smalti.data.codes import open_codes
from smalti.errors import CheckpointError
from smalti.pipelines import base as api
from smalti.pipelines.autoencoder import Autoencoder


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
            "holds codes, which the recipe prior or context learns; vqvae learns",
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


def test_large_images_are_encoded_a_few_at_a_time(smalti, trained: SimpleNamespace, tmp_path, monkeypatch) -> None:
    taken, encode = [], Autoencoder.encode

    def watched(self: Autoencoder, images: np.ndarray, **options) -> np.ndarray:
        taken.append(len(images))
        return encode(self, images, **options)

    monkeypatch.setattr(Autoencoder, "encode", watched)
    monkeypatch.setattr("smalti.pipelines.limits.CHUNK_PIXELS", 3 * 16 * 16)
    write_source(tmp_path / "new.npz", count=8)
    done = smalti("encode", trained.vqvae, "new.npz", "--out", "few")
    assert done.code == 0, done.err
    assert taken == [3, 3, 2]
    done = smalti("decode", "few", "--out", "decoded")
    assert done.code == 0, done.err
    assert len(list(Path("decoded").glob("*.png"))) == 8


def test_a_prior_is_no_autoencoder(priors) -> None:
    with pytest.raises(CheckpointError, match="is a prior, which cannot reconstruct images"):
        api.load_as(priors.plain, Autoencoder)


def test_the_source_is_written_without_its_place(smalti, trained: SimpleNamespace, tmp_path: Path) -> None:
    other = write_source(tmp_path / "deep" / "down" / "discs.npz")
    assert smalti("encode", trained.vqvae, other, "--out", "codes").code == 0
    assert "deep" not in Path("codes/all/index.json").read_text()


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


def test_an_interrupted_encoding_says_how_far_it_came(smalti, trained: SimpleNamespace, monkeypatch, capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Autoencoder, "encode", interrupted)
    with pytest.raises(SystemExit) as ended:
        smalti("encode", trained.vqvae, trained.source, "--out", "codes", "--flip")
    assert ended.value.code == 130
    assert "stopped after 0 of 80 images. Give the same command again to go on." in capsys.readouterr().err
