"""Measure the two reference trainings on the 10,000 test images, and draw the pictures in docs/.

    smalti train vqvae --data SOURCE --out runs/vqvae --images 2M
    smalti train dcgan --data SOURCE --out runs/dcgan --images 2M
    python bench/main_job.py SOURCE --vqvae runs/vqvae --dcgan runs/dcgan

SOURCE needs a train and a test split; figures here are from the JPEG copy of CIFAR-10. Writes results/main_job.json,
docs/cifar10.png, docs/vqvae.png, docs/dcgan.png and docs/curves-*.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import machine
import numpy as np
import torch
from sliced import sliced_wasserstein

from smalti import data
from smalti.checkpoint.run_dir import RunFolder
from smalti.data import PackedImages
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.pipelines import base as api
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.gan import GAN
from smalti.quantize import perplexity
from smalti.report.charts import draw_lines
from smalti.report.pictures import enlarge, grid, side_by_side, write_png
from smalti.runtime.pixels import to_tensor

DOCS = Path(__file__).parent.parent / "docs"


def measure_vqvae(model: Autoencoder, test: PackedImages) -> dict[str, object]:
    """PSNR with the squared error pooled over all test pixels, and how evenly the codes are used."""
    error, values = 0.0, 0
    counts = np.zeros(model.card.config.model.quantizer.codes, np.int64)
    for start in range(0, len(test), 500):
        images = test.pixels(range(start, min(start + 500, len(test))))
        codes = model.encode(images)
        part, count = squared_error_uint8(images, model.decode(codes))
        error, values = error + part, values + count
        counts += np.bincount(codes.ravel(), minlength=len(counts))
    return {
        "test_images": len(test),
        "psnr_db": round(psnr_db(error, values), 3),
        "perplexity": round(float(perplexity(torch.from_numpy(counts))), 1),
        "codes_used": int((counts > 0).sum()),
        "codes": len(counts),
    }


def measure_gan(model: GAN, train: PackedImages, test: PackedImages) -> dict[str, object]:
    """Sliced Wasserstein distance of 10,000 samples to the test images, and of as many training images to them."""
    count = len(test)
    real = to_tensor(test.pixels(range(count)))
    floor = to_tensor(train.batch(0, 0, count).images)
    fake = to_tensor(model.generate(count, seed=0))

    def distance(images: torch.Tensor) -> float:
        return round(sliced_wasserstein(images, real, generator=torch.Generator().manual_seed(0)), 4)

    return {
        "samples": count,
        "sliced_wasserstein": distance(fake),
        "sliced_wasserstein_of_training_images": distance(floor),
    }


def curves(folder: Path, terms: dict[str, str], label: str, path: Path) -> None:
    records = RunFolder(folder).records()
    series = {}
    for name, term in terms.items():
        rows = [r for r in records if term in r]
        series[name] = ([r["images_seen"] for r in rows], [r[term] for r in rows])
    write_png(path, draw_lines(", ".join(terms), series, x_label="images seen", y_label=label))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--vqvae", type=Path, required=True)
    parser.add_argument("--dcgan", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    train = data.load(options.source, split="train", cache=options.cache)
    test = data.load(options.source, split="test", cache=options.cache)
    vqvae, gan = api.load(options.vqvae), api.load(options.dcgan)

    result = {
        "data": "CIFAR-10 (JPEG copy)",
        "vqvae": measure_vqvae(vqvae, test),
        "dcgan": measure_gan(gan, train, test),
    }
    for name, model, folder in (("vqvae", vqvae, options.vqvae), ("dcgan", gan, options.dcgan)):
        timed = [r for r in RunFolder(folder).records() if "seconds" in r]
        result[name] |= {
            "images_seen": model.card.images_seen,
            "training_seconds": timed[-1]["seconds"],
            "digest": model.card.digest,
            "precision": next(r["precision"] for r in RunFolder(folder).records() if "precision" in r),
        }

    picked = test.pixels(np.linspace(0, len(test) - 1, 32).round().astype(int))
    pairs = side_by_side(picked, vqvae.reconstruct(picked), columns=8, scale=2)
    samples = grid(gan.generate(64, seed=0), columns=8, scale=2)
    height = max(len(pairs), len(samples))
    white = [np.full((height, width, 3), 255, np.uint8) for width in (pairs.shape[1], 24, samples.shape[1])]
    white[0][: len(pairs)], white[2][: len(samples)] = pairs, samples
    write_png(DOCS / "cifar10.png", np.concatenate(white, axis=1))
    write_png(DOCS / "vqvae.png", pairs, vqvae.provenance())
    write_png(DOCS / "dcgan.png", enlarge(grid(gan.generate(100, seed=1))[None], 2)[0], gan.provenance(seed=1))
    curves(options.vqvae, {"PSNR of training batches": "psnr"}, "dB", DOCS / "curves-vqvae-psnr.png")
    curves(
        options.vqvae, {"perplexity of training batches": "perplexity"}, "codes", DOCS / "curves-vqvae-perplexity.png"
    )
    curves(
        options.dcgan, {"generator": "generator", "discriminator": "discriminator"}, "loss", DOCS / "curves-dcgan.png"
    )
    machine.table(
        [("model", "figure", "value")] + [(n, k, str(v)) for n in ("vqvae", "dcgan") for k, v in result[n].items()]
    )
    machine.write("main_job", result)


if __name__ == "__main__":
    main()
