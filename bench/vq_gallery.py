"""Test images above what models make of them, one row a model.

    python bench/vq_gallery.py SOURCE gallery.png vqvae-best.safetensors vqvae-best.safetensors+16 vqgan.safetensors

A number after a plus is the effort (models/autoencoder/refinement.py). Weights come from `vq_quality.py --keep FOLDER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import smalti
from smalti import data
from smalti.report.pictures import enlarge, grid, write_png

IMAGES = 16  # evenly spread over the test images, not selected
SCALE = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("model", nargs="+")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    test = data.load(options.source, split="test", cache=options.cache)
    originals = test.pixels(np.linspace(0, len(test) - 1, IMAGES).round().astype(int))
    rows = [originals]
    for model in options.model:
        path, _, effort = model.partition("+")
        rows.append(smalti.load(path).reconstruct(originals, effort=int(effort or 0)))
    write_png(options.out, enlarge(grid(np.concatenate(rows), columns=IMAGES)[None], SCALE)[0])


if __name__ == "__main__":
    main()
