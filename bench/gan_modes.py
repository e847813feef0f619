"""Does a GAN find all modes? A ring of 8 and a grid of 25 Gaussians, and three digits in three channels (1,000 modes).

    python bench/gan_modes.py --run gaussians --seeds 5
    python bench/gan_modes.py --run digits --images 200k

`gaussians` trains small fully connected networks with several losses, with and without R1 and R2, on points of the
plane, all seeds side by side: a mode counts when at least a fifth of its fair share of 10,000 samples lies within
three standard deviations of it, and what lies near no mode is counted too. `digits` trains the preset gan-nano, with
model.network.patch=1 and without mirrored images, and it with the other losses and penalties, on scikit-learn's
handwritten digits, one drawn at random for each of the three channels, at 16x16: 25,600 samples are read by a
nearest-neighbour classifier (its accuracy on digits that it has not seen is printed), and modes are counted with the
divergence KL(samples || uniform). The protocol is that of Lin et al. 2018, arXiv:1712.04086, section 4.
Each row goes to results/gan_modes_gaussians.json or results/gan_modes_digits.json when it is done, in the place of an
older one of the same training; --only does some of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from typing import Any

import machine
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.run import RunConfig
from smalti.config.units import parse_count
from smalti.data.spec import ImageSpec
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.optim.ema import WeightAverage
from smalti.recipes import Images, TrainingContext
from smalti.recipes.gan import GANRecipe
from smalti.runtime.rng import seeded_generator

SAMPLES = 10_000
RING = [(2 * math.cos(angle), 2 * math.sin(angle)) for angle in torch.arange(8) * (math.pi / 4)]
GRID = [(2.0 * x, 2.0 * y) for x in range(-2, 3) for y in range(-2, 3)]
# Centres, standard deviation, and what the points are divided by so that they lie in about [-1, 1].
PLANES = {"ring of 8": (RING, 0.02, 2.0), "grid of 25": (GRID, 0.05, 2.0)}
STEPS, BATCH, LATENT, WIDTH, RATE, GAMMA = 20_000, 256, 2, 128, 2e-3, 0.1
SHARP = 4.0  # times what a network takes in: functions that change from one mode to the next
DIGITS_SIDE = 16


VARIANTS = [
    ("relativistic", GAMMA),
    ("relativistic", 0.0),
    ("bce", GAMMA),
    ("bce", 0.0),
    ("hinge", 0.0),
]


class Layers(nn.Module):
    """The same fully connected network once for each seed, side by side: (S, B, inputs) -> (S, B, outputs)."""

    def __init__(self, seeds: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width_in, width_out in itertools.pairwise((inputs, WIDTH, WIDTH, WIDTH, outputs)):
            bound = width_in**-0.5
            self.weights.append(torch.empty(seeds, width_in, width_out).uniform_(-bound, bound))
            self.biases.append(torch.empty(seeds, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, F.leaky_relu(x, 0.2) if number else SHARP * x, weight)
        return x


def train_points(plane: str, name: str, gamma: float, seeds: int) -> list[dict[str, Any]]:
    """Train on one plane; for each seed how many modes there are in the samples, and the share of samples near one."""
    centres, std, size = PLANES[plane]
    modes = torch.tensor(centres)
    torch.manual_seed(0)
    generator, critic = Layers(seeds, LATENT, 2), Layers(seeds, 2, 1)
    loss = ADVERSARIAL_LOSSES[name]
    average = WeightAverage(generator, 100 * BATCH)
    adam = [torch.optim.Adam(net.parameters(), RATE, (0.0, 0.99), fused=True) for net in (generator, critic)]
    for step in range(STEPS):
        for optimizer in adam:
            optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        real = (modes[torch.randint(len(modes), (seeds, BATCH))] + std * torch.randn(seeds, BATCH, 2)) / size
        fake = generator(torch.randn(seeds, BATCH, LATENT)).detach()
        real.requires_grad_()
        fake.requires_grad_()
        r, f = critic(real)[..., 0], critic(fake)[..., 0]
        total = loss.discriminator(r, f)
        if gamma:
            slopes = torch.autograd.grad(r.sum() + f.sum(), [real, fake], create_graph=True)
            total = total + gamma / 2 * sum(slope.square().sum(dim=-1).mean() for slope in slopes)
        adam[1].zero_grad()
        (seeds * total).backward()  # means over seeds too; each shall have the gradient that it had alone
        adam[1].step()
        f = critic(generator(torch.randn(seeds, BATCH, LATENT)))[..., 0]
        adam[0].zero_grad()
        (seeds * loss.generator(critic(real.detach())[..., 0].detach(), f)).backward()
        adam[0].step()
        average.update(generator, batch=BATCH, images_seen=(step + 1) * BATCH)
    with torch.no_grad():
        drawn = average.module(torch.randn(seeds, SAMPLES, LATENT)) * size
    return [found_modes(points, modes, std) for points in drawn]


def found_modes(points: Tensor, modes: Tensor, std: float) -> dict[str, Any]:
    distances, nearest = torch.cdist(points, modes).min(dim=1)
    near = distances <= 3 * std
    counts = torch.bincount(nearest[near], minlength=len(modes))
    return {
        "modes": int((counts >= len(points) / len(modes) / 5).sum()),
        "of": len(modes),
        "near": round(float(near.float().mean()), 3),
        "finite": bool(points.isfinite().all()),
    }


def add_row(name: str, row: dict[str, Any], keys: tuple[str, ...], **about: Any) -> list[dict[str, Any]]:
    """Into a results file, in the place of an older row with the same keys; all rows, in the order they came."""
    path = machine.RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in keys)] + [row]
    machine.write(name, about | {"rows": rows})
    print(row, flush=True)
    return rows


def gaussians(seeds: int, only: str) -> None:
    rows = list[dict[str, Any]]()
    for plane in PLANES:
        for name, gamma in VARIANTS:
            if only not in f"{plane}, {name}, {'R1 + R2' if gamma else 'none'}":
                continue
            began = time.process_time()
            found = train_points(plane, name, gamma, seeds)
            row = {
                "data": plane,
                "loss": name,
                "penalties": "R1 + R2" if gamma else "none",
                "modes": [result["modes"] for result in found],
                "of": found[0]["of"],
                "near": [result["near"] for result in found],
                "processor_minutes": round((time.process_time() - began) / 60, 1),
            }
            about = {"steps": STEPS, "batch": BATCH, "gamma": GAMMA}
            rows = add_row("gan_modes_gaussians", row, ("data", "loss", "penalties"), **about)
    machine.table(
        [("data", "loss", "penalties", "modes, each seed", "share near a mode"),
         *((row["data"], row["loss"], row["penalties"], " ".join(map(str, row["modes"])) + f" of {row['of']}",
            " ".join(f"{share:.2f}" for share in row["near"])) for row in rows)]
    )  # fmt: skip


class Digits:
    """Three digits in three channels, drawn anew for every batch, and what reads them."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits
        from sklearn.neighbors import KNeighborsClassifier

        pixels, labels = load_digits(return_X_y=True)
        known = np.arange(len(pixels)) % 5 != 0
        self.reader = KNeighborsClassifier(3).fit(pixels[known], labels[known])
        self.accuracy = float(self.reader.score(pixels[~known], labels[~known]))
        images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8 - 1
        self.images = F.interpolate(images, size=DIGITS_SIDE, mode="nearest")

    def batch(self, count: int, seed: int, seen: int) -> Images:
        draws = seeded_generator(seed, 5, seen)
        picked = self.images[torch.randint(len(self.images), (count, 3), generator=draws)]
        return Images(picked[:, :, 0].contiguous(memory_format=torch.channels_last))

    def read(self, images: Tensor) -> np.ndarray:
        """(N, 3, 16, 16) -> (N,) mode numbers, 0 to 999."""
        small = F.avg_pool2d(images.float(), 2).add(1).mul(8).clamp(0, 16)
        digits = self.reader.predict(small.flatten(0, 1).flatten(1).numpy()).reshape(-1, 3)
        return digits @ np.array([100, 10, 1])


def variants() -> dict[str, RunConfig]:
    """The default, then others in its place; the networks and rates are the same."""
    base = override(preset("gan-nano"), ["model.network.patch=1", "data.flip=false"])
    found = {"default (relativistic, R1 + R2)": base}
    for name, settings in {
        "relativistic, R1 alone": ["model.penalty.r2=false"],
        "relativistic": ["model.penalty.r1=false", "model.penalty.r2=false"],
        "bce, R1 + R2": ["model.loss=bce"],
        "bce": ["model.loss=bce", "model.penalty.r1=false", "model.penalty.r2=false"],
        "hinge": ["model.loss=hinge", "model.penalty.r1=false", "model.penalty.r2=false"],
        # The gradient penalty is about pixels alone.
        "wasserstein, gradient penalty, pixels": [
            "model.loss=wasserstein",
            "model.penalty.r1=false",
            "model.penalty.r2=false",
            "model.discriminator.inputs=pixels",
        ],
    }.items():
        found[name] = override(base, settings)
    return found


def train_digits(config: RunConfig, digits: Digits, images: int, precision: str) -> dict[str, Any]:
    recipe = GANRecipe(config, TrainingContext(ImageSpec(3, DIGITS_SIDE, DIGITS_SIDE), precision=precision))
    batch, seed = config.train.batch, config.train.seed
    recipe.horizon = images
    recipe.start(lambda: [digits.batch(1024, seed + 1, part) for part in range(4)])
    began, finite = time.process_time(), True
    for seen in range(0, images, batch):
        terms = recipe.step(digits.batch(batch, seed, seen), seen)
        finite &= bool(torch.isfinite(terms["discriminator"]))
    minutes = (time.process_time() - began) / 60
    model, draws = recipe.export(), seeded_generator(seed, 6)
    with torch.no_grad():
        parts = [model(torch.randn(256, model.latent, generator=draws)) for _ in range(100)]
    counts = np.bincount(digits.read(torch.cat(parts)), minlength=1000)
    shares = counts[counts > 0] / counts.sum()
    return {
        "modes": int((counts > 0).sum()),
        "divergence": round(float((shares * np.log(shares * 1000)).sum()), 3),
        "finite": finite,
        "images": images,
        "processor_minutes": round(minutes, 1),
    }


def run_digits(images: int, precision: str, only: str) -> None:
    digits = Digits()
    print(f"the reader is right about {digits.accuracy:.1%} of digits that it has not seen")
    for name, config in variants().items():
        if only in name:
            row = {"name": name, **train_digits(config, digits, images, precision)}
            add_row("gan_modes_digits", row, ("name", "images"), reader_accuracy=round(digits.accuracy, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", choices=["gaussians", "digits"], required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", default="200k")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    options = parser.parse_args()
    if options.run == "gaussians":
        gaussians(options.seeds, options.only)
    else:
        run_digits(parse_count(options.images), options.precision, options.only)


if __name__ == "__main__":
    main()
