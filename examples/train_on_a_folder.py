"""Train a VQ-VAE on a folder of images and look at its reconstructions.

    python examples/train_on_a_folder.py photos/ --size 64 --out runs/photos --minutes 10

Stop it with Ctrl-C whenever you like; the same command continues. Originals, with their
reconstructions below, are written to runs/photos.png.
"""

from __future__ import annotations

import argparse

import numpy as np

import smalti


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder or an archive of images, or emoji")
    parser.add_argument("--size", type=int, default=64, help="side in pixels that every image is brought to")
    parser.add_argument("--out", default="runs/photos", help="folder of the run")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--set", action="append", default=[], help="a setting, such as model.quantizer.codes=1024")
    options = parser.parse_args()

    data = smalti.datasets.load(options.images, size=options.size, channels=3)
    config = smalti.override(smalti.preset("vqvae"), options.set)
    result = smalti.train(config, data, options.out, budget_seconds=60 * options.minutes)
    print(f"{result.reason} after {result.images_seen:,} images: {result.score}")

    model = smalti.Autoencoder.from_pretrained(options.out)
    originals = data.pixels(np.arange(min(8, len(data))))  # (8, 64, 64, 3) uint8
    both = np.concatenate([originals, model.reconstruct(originals)])
    smalti.save_grid(both, f"{options.out}.png", columns=len(originals))


if __name__ == "__main__":
    main()
