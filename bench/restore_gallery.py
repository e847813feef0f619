"""Photographs before and after restoration, windows of them chosen by a seed and not picked.

    python bench/restore_gallery.py gallery.png [--seed 0] zoo:denoise='noise(25)' zoo:jpeg-repair='jpeg(10)' ...

A row for each restorer and degradation, with a window of 128x128 pixels of each photograph that comes with scikit-image
and is free (astronaut: NASA, public domain; cat, coffee, rocket: CC0): degraded (enlarged bicubic if it is smaller),
restored, and the original. None of them was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from smalti.config.degradation import parse_degradation
from smalti.data.degrade import degrade
from smalti.pipelines.restorer import Restorer
from smalti.report.pictures import grid, write_png

SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", nargs="+", metavar="RESTORER=DEGRADATION")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pictures = [
        load()[..., :3] for load in (skimage.data.astronaut, skimage.data.cat, skimage.data.coffee, skimage.data.rocket)
    ]
    # Photographs of about the size that the restorers know, whose sides are multiples of 4.
    pictures = [np.asarray(Image.fromarray(picture).resize((480, 320), box=middle(picture))) for picture in pictures]
    cells, generator = [], np.random.default_rng(options.seed)
    for row in options.rows:
        name, _, text = row.partition("=")
        restorer, degradation = Restorer.from_pretrained(name), parse_degradation(text)
        for number, picture in enumerate(pictures):
            found = degrade(picture, degradation, seed=options.seed, number=number)
            after = restorer.restore(found.image, hole=found.hole)
            height, width = after.shape[:2]
            before = np.asarray(Image.fromarray(found.image).resize((width, height), Image.Resampling.BICUBIC))
            top, left = int(generator.integers(height - SIDE + 1)), int(generator.integers(width - SIDE + 1))
            cells += [whole[top : top + SIDE, left : left + SIDE] for whole in (before, after, picture)]
    write_png(options.out, grid(np.stack(cells), columns=3 * len(pictures)))


def middle(picture: np.ndarray) -> tuple[float, float, float, float]:
    """The largest part of 3:2 in the middle: left, top, right, bottom."""
    height, width = picture.shape[:2]
    wide = min(width, height * 3 / 2)
    high = wide * 2 / 3
    return (width - wide) / 2, (height - high) / 2, (width + wide) / 2, (height + high) / 2


if __name__ == "__main__":
    main()
