"""Training speed of the `vqvae` preset, and what the loop costs around it.

    python bench/train_speed.py

1  Images a second, three ways of the same network in turn, several rounds in one process:
     smalti     the preset's step with the machine's default precision and channels last, averaged weights included
     float32    the same step in float32
     plain      the same layers in an ordinary eager float32 PyTorch loop: contiguous NCHW, nearest code by cdist and
                one-hot EMA as tutorials write it, torch.optim.Adam
2  The share of wall clock that the training loop spends outside `recipe.step`, at batch 64, with default logging,
   and one preview, score and save at its end.

Ratios are medians over rounds. Writes results/train_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti import data
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.recipes import Images, TrainingContext, build_recipe
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_tensor
from smalti.training.loop import train

BATCH = 64


class PlainVQVAE(nn.Module):
    """The same encoder and decoder around a quantizer written the usual way."""

    def __init__(self, network: Autoencoder, codes: int, dimension: int) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.register_buffer("codebook", torch.randn(codes, dimension) * 0.01)
        self.register_buffer("size", torch.ones(codes))
        self.register_buffer("total", self.codebook.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        codes = torch.cdist(flat, self.codebook).argmin(dim=1)
        with torch.no_grad():
            hot = F.one_hot(codes, len(self.codebook)).float()
            self.size.mul_(0.99).add_(hot.sum(dim=0), alpha=0.01)
            self.total.mul_(0.99).add_(hot.T @ flat, alpha=0.01)
        q = self.codebook[codes].view(z.shape[0], z.shape[2], z.shape[3], -1).permute(0, 3, 1, 2)
        loss = 0.25 * F.mse_loss(z, q.detach())
        with torch.no_grad():
            self.codebook.copy_(self.total / (self.size + 1e-5)[:, None])
        return self.decoder(z + (q - z).detach()), loss


def plain_step(network: Autoencoder) -> Callable[[Tensor], None]:
    model = PlainVQVAE(network, 512, 64)
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], lr=1e-3)

    def step(x: Tensor) -> None:
        reconstruction, loss = model(x)
        loss = loss + 4.0 * F.mse_loss(reconstruction, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def smalti_step(precision: str) -> Callable[[Tensor], None]:
    recipe = build_recipe(preset("vqvae"), TrainingContext(ImageSpec(3, 32, 32), precision=precision))
    seen = [0]

    def step(x: Tensor) -> None:
        recipe.step(Images(x), seen[0])
        seen[0] += BATCH

    return step


def speeds(rounds: int, steps: int) -> dict[str, list[float]]:
    precision = Machine().resolve()[1]
    network = Autoencoder(preset("vqvae").model, 3)
    ways = {"smalti": smalti_step(precision), "float32": smalti_step("float32"), "plain": plain_step(network)}
    packed = data.load("emoji", split="train", channels=3)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, step in ways.items():
            start = time.perf_counter()
            for index in range(steps):
                images = to_tensor(packed.batch(0, index * BATCH, BATCH).images)
                step(images.contiguous() if name == "plain" else images)
            if number:  # the first round warms up
                found[name].append(steps * BATCH / (time.perf_counter() - start))
    return found


def overhead(name: str, images: int) -> float:
    """Share of the loop's wall clock outside `recipe.step`."""
    config = override(preset(name), [f"train.images={images}", f"train.save_every={images}", f"train.batch={BATCH}"])
    recipe, inside = config.kind.load_recipe(), [0.0]
    step = recipe.step

    def timed(self, batch, images_seen):
        start = time.perf_counter()
        terms = step(self, batch, images_seen)
        inside[0] += time.perf_counter() - start
        return terms

    recipe.step = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            packed = data.load("emoji", split="train", channels=3)
            start = time.perf_counter()
            result = train(config, packed, Path(folder) / "run", machine=Machine(device="cpu"))
            total = time.perf_counter() - start
    finally:
        recipe.step = step
    print(f"{name}: {result.images_seen / total:.0f} images/s, {100 * (1 - inside[0] / total):.1f} % outside the step")
    return 1 - inside[0] / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--images", type=int, default=25_600)
    options = parser.parse_args()
    found = speeds(options.rounds, options.steps)
    plain = found["plain"]
    rows = {
        name: {
            "images_per_second": round(statistics.median(values), 1),
            "times_plain": round(statistics.median(a / b for a, b in zip(values, plain, strict=True)), 2),
        }
        for name, values in found.items()
    }
    machine.table(
        [("way", "images/s", "times plain")]
        + [(name, f"{row['images_per_second']:.0f}", f"{row['times_plain']:.2f}") for name, row in rows.items()]
    )
    shares = {name: round(overhead(name, options.images), 4) for name in ("vqvae", "dcgan")}
    path = machine.write("train_speed", {"batch": BATCH, "speed": rows, "share_outside_step": shares})
    print(f"written: {path}")


if __name__ == "__main__":
    main()
