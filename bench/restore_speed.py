"""Speed of restorers beside plain PyTorch, a published small network and BM3D, in one run.

    python bench/restore_speed.py RESTORER [RESTORER ...] [--side 1024] [--rounds 3] [--threads 2]

Each restorer works on a picture of side x side pixels of clouds and noise, 8-bit pixels to 8-bit pixels, in tiles.
Beside it, in turn, so that both see the same load of the machine:

    plain    the same network on the same picture as one float32 tensor, default layout (NCHW), eager
    SPAN     48 channels, six blocks, x2, with its convolutions merged, as it is run (Wan et al. 2023, arXiv:2311.12770;
             weights at random), as one float32 tensor, on a picture of half the side: the same size of result
    BM3D     colour, at 25 levels, on 192x192 pixels of the picture, as it takes a minute for a photograph

Megapixels of the result a second, the median over the rounds; and the ratio to `plain`.
Writes results/restore_speed.json.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import machine
import numpy as np
import torch
import torch.nn.functional as F
from restore_peers import bm3d
from torch import Tensor, nn

from smalti.config.degradation import parse_degradation
from smalti.data.degrade import degrade
from smalti.pipelines.restorer import Restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorers", nargs="+")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    picture = clouds(options.side)
    works: dict[str, tuple[Callable[[], object], float]] = {}
    for name in options.restorers:
        restorer = Restorer.from_pretrained(name)
        image = picture[: options.side // restorer.scale, : options.side // restorer.scale]
        megapixels = options.side**2 / 1e6
        works[name] = (lambda restorer=restorer, image=image: restorer.restore(image), megapixels)
        works[f"{name}, plain"] = (plain(restorer, image), megapixels)
    half = as_tensor(picture[: options.side // 2, : options.side // 2])
    span = Span().eval()
    works["SPAN x2"] = (lambda: span(half), options.side**2 / 1e6)
    works["BM3D"] = (lambda: bm3d(picture[:192, :192], 25.0), 192**2 / 1e6)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):  # the first one warms up
            for name, (work, _) in works.items():
                begin = time.perf_counter()
                work()
                if turn:
                    seconds[name].append(time.perf_counter() - begin)
    speeds = {name: megapixels / statistics.median(seconds[name]) for name, (_, megapixels) in works.items()}
    rows = [("what", "megapixels/s", "of plain")]
    for name, speed in speeds.items():
        base = speeds.get(f"{name}, plain")
        rows.append((name, f"{speed:.3f}", "" if base is None else f"{speed / base:.2f}"))
    machine.table(rows)
    machine.write("restore_speed", {"side": options.side, "rounds": options.rounds, "megapixels_per_second": speeds})


def clouds(side: int) -> np.ndarray:
    """(side, side, 3) uint8."""
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.random((1, 3, 16, 16), dtype=np.float32))
    levels = F.interpolate(coarse, (side, side), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    return degrade(np.rint(levels).astype(np.uint8), parse_degradation("noise(25)"), seed=0).image


def as_tensor(picture: np.ndarray) -> Tensor:
    return (torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1).contiguous()


def plain(restorer: Restorer, image: np.ndarray) -> Callable[[], object]:
    """The network as an ordinary float32 module whose weights and inputs have the default layout."""
    network = copy.deepcopy(restorer.module).float().to(memory_format=torch.contiguous_format)
    inputs = as_tensor(image)
    return lambda: plain_forward(network, inputs)


def plain_forward(network: nn.Module, images: Tensor) -> Tensor:
    """models/restorer/restorer.py without its change of layout."""
    grid = F.pixel_unshuffle(images, network.patch)
    correction = F.pixel_shuffle(network.head(network.body(network.stem(grid))), network.patch * network.scale)
    if network.scale == 1:
        return images + correction
    return F.interpolate(images, scale_factor=float(network.scale), mode="bicubic") + correction


class Span(nn.Module):
    """Attention without parameters: each block multiplies its result by its own shifted sigmoid."""

    def __init__(self, width: int = 48, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList([
            nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]) for _ in range(6)
        ])  # fmt: skip
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(4 * width, width, 1)
        self.head = nn.Conv2d(width, 3 * scale**2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        features = x = self.stem(images)
        after: list[Tensor] = []
        for first, second, third in self.blocks:  # type: ignore[misc]
            inner = F.silu(first(x))
            found = third(F.silu(second(inner)))
            x = (found + x) * (torch.sigmoid(found) - 0.5)
            after.append(x)
        mixed = self.mix(torch.cat([features, self.last(x), after[0], inner], dim=1))
        return F.pixel_shuffle(self.head(mixed), self.scale)


if __name__ == "__main__":
    main()
