"""How many pictures and minutes a codec needs: bytes against WebP and AVIF after trainings on few and many pictures.

    python bench/codec_learning.py SOURCE [--counts 100 1000 10000] [--minutes 1 3 9] [--images 200] [--threads 1]

Trains the preset codec-tiny on so many evenly spaced training pictures, for so many minutes of so many threads, where
each mark goes on from the one before with a longer schedule, as `smalti train` with a larger --budget does. Bytes are
of whole files at a PSNR pooled over test pictures; WebP: one file a picture, method 6; AVIF: mosaics of 100, speed 4,
4:4:4, tune=psnr, against our archive.

Writes results/codec_learning.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from codec import number, our_curves, ratio

import smalti
from smalti import data
from smalti.data.order import evenly_spread
from smalti.evaluation.codecs import Curve, bytes_at, peer_curve
from smalti.pipelines.codec import Codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 9])
    parser.add_argument("--images", type=int, default=200, help="test pictures")
    parser.add_argument("--qualities", type=int, nargs="+", default=[14, 22, 30, 38])
    parser.add_argument("--effort", type=int, default=8)
    parser.add_argument("--psnr", type=float, default=25.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = data.load(options.source, split="train"), data.load(options.source, split="test")
    images = test.take(evenly_spread(len(test), options.images)).images
    webp = peer_curve("webp", list(images), (0, 1, 2, 5, 10, 18, 28, 40))
    avif = peer_curve("avif", list(images), (4, 10, 15, 20, 28, 36, 44, 52), mosaic=100, options={"speed": 4})
    peers = bytes_at(webp, options.psnr), bytes_at(avif, options.psnr)
    rows = [("pictures", "minutes", "seen", "file", "of WebP", "in an archive", "of AVIF")]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.counts:
            source = Path(folder) / f"{count}.npz"
            np.savez(source, images=train.take(evenly_spread(len(train), count)).images)
            chosen = data.load(source, cache=Path(folder) / "cache")
            for minutes in options.minutes:
                seen, curves = trained(chosen, source, minutes, images, options)
                sizes = [bytes_at(curve, options.psnr) for curve in curves]
                ratios = [ratio(size, peer) for size, peer in zip(sizes, peers, strict=True)]
                rows.append((
                    f"{count:,}", f"{minutes:g}", f"{seen:,}", number(sizes[0]), number(ratios[0], 2),
                    number(sizes[1]), number(ratios[1], 2),
                ))  # fmt: skip
                print(rows[-1], flush=True)
                found.append({
                    "pictures": count, "minutes": minutes, "images_seen": seen, "curves": curves,
                    "file_of_webp": ratios[0], "archive_of_avif": ratios[1],
                })  # fmt: skip
    machine.table(rows)
    result = {"psnr": options.psnr, "images": len(images), "results": found, "webp": webp, "avif": avif}
    machine.write("codec_learning", result)


def trained(
    chosen: Any, source: Path, minutes: float, images: np.ndarray, options: argparse.Namespace
) -> tuple[int, tuple[Curve, Curve]]:
    """Images seen, and curves of single files and of an archive, after so many minutes in all."""
    run = source.with_suffix("")
    settings = (f"data.source={source}", "train.images=10000000000000", "train.save_every=100000000")
    config = smalti.override(smalti.preset("codec-tiny"), list(settings))
    result = smalti.train(config, chosen, run, budget_seconds=60 * minutes)
    codec = Codec.from_pretrained(run)
    return result.images_seen, our_curves(codec, images, options.qualities, options.effort)


if __name__ == "__main__":
    main()
