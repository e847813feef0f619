"""Photographs before and after restoration, drawn at random by a seed and not picked.

    python bench/restore_gallery.py SOURCE gallery.png [--seed 0] zoo:denoise='noise(25)' zoo:jpeg-repair='jpeg(10)' ...

A row for each restorer and degradation: windows of 128x128 pixels in the middle of four photographs of --split; each
one degraded (enlarged bicubic if it is smaller), restored, and the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from restore import WINDOW, middle, photographs

from smalti.config.degradation import parse_degradation
from smalti.data.degrade import degrade
from smalti.pipelines.restorer import Restorer
from smalti.report.pictures import grid, write_png

PICTURES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", nargs="+", metavar="RESTORER=DEGRADATION")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    every = photographs(options.source, options.split, 1_000_000, scale=4)
    cells = []
    for number, row in enumerate(options.rows):
        name, _, text = row.partition("=")
        restorer, degradation = Restorer.from_pretrained(name), parse_degradation(text)
        chosen = np.random.default_rng((options.seed, number)).choice(len(every), PICTURES, replace=False)
        for index in chosen.tolist():
            # Windows of whole results: a network that sees beyond the window has its surroundings here too.
            found = degrade(every[index], degradation, seed=options.seed, number=index)
            after = restorer.restore(found.image, hole=found.hole)
            height, width = after.shape[:2]
            before = np.asarray(Image.fromarray(found.image).resize((width, height), Image.Resampling.BICUBIC))
            cells += [middle(before), middle(after), middle(every[index])]
    write_png(options.out, grid(np.stack(cells), columns=3 * PICTURES))
    print(f"{options.out}: {len(options.rows)} rows of {PICTURES} photographs, {WINDOW}x{WINDOW} pixels of each")


if __name__ == "__main__":
    main()
