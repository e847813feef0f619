"""Animate a walk through the latent space of a GAN.

    smalti train gan-nano --data photos/ --size 64 --out runs/gan --budget 2h
    python examples/walk_in_latent_space.py runs/gan --images 3,17,5 --frames 90 --out walk.webp

The walk starts at image 3 of the seed, passes image 17 and ends at image 5, along the sphere that latents lie near. A
straight line would pass through points that the generator never saw in training.
"""

from __future__ import annotations

import argparse

import smalti
from smalti.pipelines.latents import walk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder or checkpoint of a trained GAN")
    parser.add_argument("--images", default="3,17,5", help="numbers of the images to walk between")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", help="name of the class, for a GAN with labels; default: the first")
    parser.add_argument("--out", default="walk.webp", help=".webp, .gif or .png")
    options = parser.parse_args()

    gan = smalti.GAN.from_pretrained(options.run)
    points = gan.sample_latents([int(number) for number in options.images.split(",")], seed=options.seed)  # (3, D)
    latents = walk(points, options.frames)  # (90, D)
    labels = gan.labels([0] * len(latents), options.label)  # one class for all frames; None for a GAN without labels
    first, *others = gan.synthesize(latents, labels=labels, output="pil")
    first.save(options.out, save_all=True, append_images=others, duration=1000 / 30, loop=0)
    print(f"{len(latents)} frames in {options.out}")


if __name__ == "__main__":
    main()
