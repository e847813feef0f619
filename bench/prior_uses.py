"""What a prior is good for: holes filled, and prompts drawn.

    python bench/prior_uses.py fill RUN SOURCE
    python bench/prior_uses.py prompts RUN

`fill` cuts a hole of 12x12 pixels (of images of 32x32; in proportion else) out of test images, fills it by the prior,
by Telea's method (OpenCV) and with the mean of the rest, and compares the holes with a margin of 2 pixels: the Frechet
distance of their features to the originals' (efficientnet-lite0, 128 px; 2,000 holes, for 1,280 features), and the mean
distance of the feature maps. Also how far four versions of one hole are from each other, all pairs, and of the codes
that are kept the share that are others than those of the whole image. Needs pip install opencv-python-headless beside
smalti[bench].

`prompts` draws pictures for captions of the emoji that were held out and whose words the prior has seen, and looks for
the training emoji that is nearest (smalti-vit): its category must be the one the caption says. The baseline takes the
category that is the most frequent. The prior is one of the preset text-emoji, trained on the codes of the emoji.

Each writes a picture to docs/ and its figures to results/prior_fill.json or prior_prompts.json.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from pathlib import Path

import machine
import numpy as np
import torch

import smalti
from smalti import data
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import Extractor, extractor
from smalti.metrics.distribution import measure_distribution
from smalti.metrics.neighbours import nearest
from smalti.metrics.perceptual import PerceptualDistance
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling
from smalti.pipelines.inpainting import filled_from_surroundings
from smalti.report.pictures import grid, write_png
from smalti.runtime.pixels import to_tensor

DOCS = Path(__file__).parent.parent / "docs"
SHARE, MARGIN, SHOWN = 12 / 32, 2, 16


def fill(options: argparse.Namespace) -> None:
    import cv2

    model = smalti.load(options.run)
    _, height, width = model.card.image.shape
    images = data.load(options.source, split="test", size=(height, width), channels=model.card.image.shape[0])
    images_chosen = np.linspace(0, len(images) - 1, options.count).round().astype(np.int64)
    originals = images.pixels(images_chosen)
    side, chance = round(SHARE * height), np.random.default_rng(0)
    corners = chance.integers(MARGIN, [height - side - MARGIN + 1, width - side - MARGIN + 1], (options.count, 2))
    crops: dict[str, list[np.ndarray]] = {name: [] for name in ("original", "prior", "telea", "mean")}
    shown, apart, smooth, kept = [], [], [], []
    for number, (picture, (top, left)) in enumerate(zip(originals, corners.tolist(), strict=True)):
        hole = np.zeros((height, width), bool)
        hole[top : top + side, left : left + side] = True
        versions = model.fill(picture, hole, count=4, seed=number)
        mean = picture.copy()
        mean[hole] = picture[~hole].mean(axis=0).round()
        telea = cv2.inpaint(picture, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        assert all(np.array_equal(version[~hole], picture[~hole]) for version in versions)
        rows = slice(top - MARGIN, top + side + MARGIN), slice(left - MARGIN, left + side + MARGIN)
        for name, found in (("original", picture), ("prior", versions[0]), ("telea", telea), ("mean", mean)):
            crops[name].append(found[rows])
        smooth.append(filled_from_surroundings(picture, hole))
        kept.append(~model.masked_positions(hole))
        inside = versions[:, hole].astype(float)
        apart += [np.abs(one - other).mean() for one, other in itertools.combinations(inside, 2)]
        if number % max(1, options.count // SHOWN) == 0 and len(shown) < SHOWN:
            cut = picture.copy()
            cut[hole] = 128
            shown.append(np.stack([picture, cut, mean, telea, *versions]))
    network = extractor("efficientnet-lite0", precision="bfloat16")
    rows = {name: figures(network, crops["original"], crops[name]) for name in ("prior", "telea", "mean")}
    for name, row in rows.items():
        print(name, row)
    others = (codes_of(model.module, np.stack(smooth)) != codes_of(model.module, originals)).any(axis=1)
    changed = float(others[np.stack(kept)].mean())
    print(f"two versions of a hole differ by {np.mean(apart):.1f} of 255 on average")
    print(f"{changed:.1%} of the kept codes are others than those of the whole image")
    write_png(DOCS / "prior-fill.png", grid(np.concatenate(shown), columns=16, scale=2))
    about = {"model": model.card.digest[:16], "preset": model.card.config.preset, "images_seen": model.card.images_seen,
             "images": options.count, "versions_apart": round(float(np.mean(apart)), 1),
             "kept_codes_that_differ": round(changed, 3)}  # fmt: skip
    machine.write("prior_fill", about | rows)


@torch.no_grad()
def codes_of(generator: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    assert isinstance(generator, ImagePrior)
    parts = [
        generator.tokenizer.encode(to_tensor(images[start : start + 256])).codes for start in range(0, len(images), 256)
    ]
    return torch.cat(parts).numpy()


def figures(network: Extractor, originals: list[np.ndarray], filled: list[np.ndarray]) -> dict[str, float]:
    real, fake = (np.stack(part) for part in (originals, filled))
    distance = PerceptualDistance(network)
    for start in range(0, len(real), 100):
        distance.update(real[start : start + 100], fake[start : start + 100])
    found = measure_distribution(*(collect(ArrayImages(part), network) for part in (real, fake)))
    values = {figure.name: figure.value for figure in (*found, *distance.compute())}
    return {name: round(values[name], 4) for name in ("frechet_distance", "perceptual_distance")}


def prompts(options: argparse.Namespace) -> None:
    model = smalti.load(options.run)
    _, height, width = model.card.image.shape
    load = functools.partial(data.load, "emoji", size=(height, width), channels=model.card.image.shape[0])
    train, test = load(split="train"), load(split="test")
    assert train.captions is not None
    assert test.captions is not None
    assert train.labels is not None
    assert test.labels is not None
    words = {word for caption in train.captions for word in caption.lower().split()}
    known = [row for row, caption in enumerate(test.captions) if set(caption.lower().split()) <= words]
    chosen = [known[k] for k in np.linspace(0, len(known) - 1, min(options.count, len(known))).round().astype(int)]
    how = Sampling(guidance=options.guidance, temperature=options.temperature)
    texts = [test.captions[row].lower() for row in chosen]
    drawn = np.stack([model.generate(1, seed=options.seed, prompt=text, sampling=how)[0] for text in texts])
    network = extractor("smalti-vit")
    known_features = collect(train, network)
    _, indices = nearest(collect(ArrayImages(drawn), network), known_features, 1)
    wanted = np.asarray(test.labels)[chosen]
    right = np.asarray(train.labels)[indices[:, 0].numpy()] == wanted
    counts = np.bincount(np.asarray(train.labels), minlength=len(train.classes))
    frequent = float((wanted == counts.argmax()).mean())
    print(f"{right.mean():.0%} of {len(right)} prompts; the most frequent category always: {frequent:.0%}")
    for text, good in zip(texts, right, strict=True):
        print(f"  {'right' if good else 'wrong'}  {text}")
    beside = test.pixels(np.array(chosen))
    sheet = np.stack([beside, drawn, train.pixels(indices[:, 0].numpy())], axis=1)
    write_png(DOCS / "prior-prompts.png", grid(sheet.reshape(-1, *drawn.shape[1:]), columns=15, scale=2))
    machine.write("prior_prompts", {"prompts": len(right), "right": round(float(right.mean()), 3),
                                    "most_frequent_category": round(frequent, 3), "guidance": options.guidance,
                                    "temperature": options.temperature, "seed": options.seed,
                                    "model": model.card.digest[:16],
                                    "images_seen": model.card.images_seen})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fill", "prompts"])
    parser.add_argument("run")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--count", type=int)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.count = options.count or {"fill": 2000, "prompts": 50}[options.what]
    torch.set_num_threads(1)
    {"fill": fill, "prompts": prompts}[options.what](options)


if __name__ == "__main__":
    main()
