"""`smalti evaluate autoencoder` and `smalti evaluate encoder`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from command_line import eye
from PIL import Image
from small_runs import pixels, write_source


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
