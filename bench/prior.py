"""Priors over codes: what they draw, how many bits they find, how fast they draw.

    smalti encode RUN SOURCE --out codes --flip
    python bench/prior.py quality codes SOURCE --run prior-nano --minutes 60
    python bench/prior.py quality codes SOURCE --run pixelcnn --like prior-nano --minutes 60
    python bench/prior.py quality codes SOURCE --run floor
    python bench/prior.py speed codes
    python bench/prior.py table

`quality` trains on codes for so many minutes of processor time (one thread) and then measures, with the averaged
weights: bits of a code of the test split, exactly; and the Frechet distance of drawn images to the test images
(efficientnet-lite0, 128 px, bf16, as many as there are test images, at most 10,000), at each of `--temperatures` and,
of codes with labels or groups and --set model.condition=class, `--guidances`; the best of them counts, and the bits are
those where the label is known, so such a row is not to be compared with one without labels. `pixelcnn` is the gated
PixelCNN of 15 layers, of about as many parameters as the preset `--like`; it begins with the frequencies of the codes
as the presets do, and codes that lie side by side at one place are laid out as a square grid for it. `floor` is the
tokenizer's own reconstructions, and what codes cost by their number and by their frequencies.

`speed` draws 1 image and 64 images with cached keys and values, from the whole prefix again for each code, and masked
in 10 steps, in turn, on one thread; then 64 and 256 images in blocks of 16, as `smalti generate` does, and how much
more memory the process took for the 256. Rows go to results/prior_quality.json and prior_speed.json. With --keep FOLDER
the weights and a sheet of samples are kept; with --weights FILE they are drawn from in other ways, beside those in the
row already.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import torch.nn.functional as F
from pixelcnn import PixelCNN
from torch import Tensor

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.data import PackedImages
from smalti.data.codes import TOKENIZER, CodeSet, open_codes
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import extractor
from smalti.metrics.distribution import measure_distribution
from smalti.models.prior.image_prior import ImagePrior
from smalti.models.prior.sampling import Sampling, choose, ready, uniform_numbers
from smalti.optim.ema import WeightAverage
from smalti.pipelines.prior import BLOCK
from smalti.recipes.prior import PriorRecipe
from smalti.report.pictures import grid, write_png
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_pixels
from smalti.runtime.rng import seeded_generator
from smalti.training.batches import first_batches, open_feed, spread_batches

CPU = torch.device("cpu")
SAMPLES = 10_000
PIXELCNN_RATE, HALF_LIFE = 1e-3, 20_000


def frechet(images: np.ndarray, test: PackedImages, cache: Path | None) -> float:
    network = extractor("efficientnet-lite0", precision="bfloat16")
    fake = collect(ArrayImages(images), network)
    figures = {f.name: f.value for f in measure_distribution(collect(test, network, cache=cache), fake)}
    return round(figures["frechet_distance"], 2)


def spend(recipe: PriorRecipe, codes: CodeSet, minutes: float) -> int:
    """Train for so many processor minutes; how many images were seen."""
    config, began = recipe.config, time.process_time()
    recipe.start(lambda: first_batches(recipe, codes, config.data, config.train.seed))
    feed, seen, batch = open_feed(recipe, codes, config.data), 0, config.train.batch
    while (spent := time.process_time() - began) < 60 * minutes:
        if seen:
            recipe.horizon = round(seen * 60 * minutes / spent)
        recipe.step(feed.batch(config.train.seed, seen, batch), seen)
        seen += batch
    return seen


def train_prior(
    name: str,
    settings: list[str],
    codes: CodeSet,
    minutes: float,
    keep: Path | None = None,
    weights: Path | None = None,
) -> tuple[dict[str, Any], Any]:
    """A preset for so many processor minutes; the row, and what draws (start, end, temperature, guidance).

    Args:
        keep: a folder for the weights.
        weights: those of such a training, in place of one.
    """
    config = override(preset(name), settings)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=codes.source))
    setting = PriorRecipe.context_for(codes, CPU, Machine().resolve()[1])
    recipe = PriorRecipe(config, setting)
    if weights is not None:
        trained, card = checkpoint.read(weights)
        assert isinstance(trained, ImagePrior)
        recipe.averages["prior"].module.load_state_dict(trained.prior.state_dict())
        seen = card.images_seen
    else:
        seen = spend(recipe, codes, minutes)
    whole = recipe.export()
    if keep is not None and weights is None:
        assert setting.tokenizer is not None
        about = {"source": codes.source, "split": codes.split, "fingerprint": codes.fingerprint, "images": len(codes)}
        card = checkpoint.Card(
            "prior", config, codes.spec.image, codes.classes, seen, about, tokenizer=setting.tokenizer.card
        )
        keep.mkdir(parents=True, exist_ok=True)
        checkpoint.write(keep / f"{name}-{minutes:g}.safetensors", whole, card)

    def draw(start: int, end: int, temperature: float, guidance: float) -> Tensor:
        numbers = range(start, end)
        usual = whole.labels_by_frequency(numbers)
        with setting.autocast():
            labels = None if usual is None else torch.tensor(usual)
            return whole.draw(numbers, 0, Sampling(temperature, guidance=guidance), labels=labels)

    test = open_codes(codes.folder, "test")
    score = recipe.score(spread_batches(test, len(test), 256, recipe.to_device))
    bits = round(score.value, 4) if recipe.prior.causal else None
    parameters = sum(p.numel() for p in recipe.prior.parameters())
    return {"images_seen": seen, "parameters": parameters, "bits_per_code": bits}, draw


def as_grid(codes: Tensor) -> Tensor:
    """(B, P, h, w) -> (B, h', w'), with the planes of one place as a square."""
    if codes.shape[1] == 1:
        return codes[:, 0]
    side = math.isqrt(codes.shape[1])
    assert side * side == codes.shape[1]
    assert codes.shape[2:] == (1, 1)
    return codes.view(len(codes), side, side)


def train_pixelcnn(like: str, codes: CodeSet, minutes: float) -> tuple[dict[str, Any], Any]:
    """The same for the PixelCNN."""
    wanted = parameters_of(like, codes)
    size = max(codes.about.codebook_sizes)
    width = min(range(16, 1024, 8), key=lambda w: abs(sum(p.numel() for p in PixelCNN(size, w).parameters()) - wanted))
    torch.manual_seed(0)
    network = PixelCNN(size, width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = np.bincount(codes.codes.ravel(), minlength=size) + 1.0
    with torch.no_grad():
        network.head[-1].bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    average = WeightAverage(network, HALF_LIFE)
    optimizer = torch.optim.AdamW(network.parameters(), PIXELCNN_RATE, (0.9, 0.98), weight_decay=0.05, fused=True)
    batch, seen, began = preset(like).train.batch, 0, time.process_time()
    setting = PriorRecipe.context_for(codes, CPU, Machine().resolve()[1])
    while (spent := time.process_time() - began) < 60 * minutes:
        rise = min(1.0, seen / 20_000)
        optimizer.param_groups[0]["lr"] = PIXELCNN_RATE * rise * (1 + math.cos(math.pi * spent / (60 * minutes))) / 2
        grid = as_grid(torch.from_numpy(codes.batch(0, seen, batch).codes))
        with setting.autocast():
            logits = network(grid)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), grid).backward()
        optimizer.step()
        seen += batch
        average.update(network, batch=batch, images_seen=seen)
    model = average.module
    test = open_codes(codes.folder, "test")
    total = 0.0
    for part in spread_batches(test, len(test), 256, lambda raw: raw):
        grid = as_grid(torch.from_numpy(part.codes))
        with torch.no_grad(), setting.autocast():
            total += float(F.cross_entropy(model(grid).float(), grid)) * len(grid) / math.log(2)
    shape = as_grid(torch.zeros(1, *codes.about.row, dtype=torch.int64)).shape[1:]

    def draw(start: int, end: int, temperature: float, guidance: float) -> Tensor:
        with setting.autocast():
            found = model.sample(end - start, tuple(shape), seeded_generator(0, start), temperature)
        return found.view(end - start, *codes.about.row)

    parameters = sum(p.numel() for p in network.parameters())
    return {"images_seen": seen, "parameters": parameters, "bits_per_code": round(total / len(test), 4)}, draw


def parameters_of(name: str, codes: CodeSet) -> int:
    recipe = PriorRecipe(preset(name), PriorRecipe.context_for(codes, CPU, "float32"))
    return sum(p.numel() for p in recipe.prior.parameters())


def floor(codes: CodeSet, test: PackedImages, cache: Path | None) -> dict[str, Any]:
    """The tokenizer's reconstructions of the test images, and what its codes cost without a prior."""
    held_out = open_codes(codes.folder, "test")
    codebook_sizes = codes.about.codebook_sizes
    counts = [
        np.bincount(codes.codes[:, plane].ravel(), minlength=size) + 1.0 for plane, size in enumerate(codebook_sizes)
    ]
    costs = [-np.log2(count / count.sum()) for count in counts]
    order0 = np.mean([costs[plane][held_out.codes[:, plane]].mean() for plane in range(len(codebook_sizes))])
    pictures = decode(codes, lambda start, end: torch.from_numpy(held_out.codes[start:end].astype(np.int64)), len(test))
    return {
        "uniform_bits_per_code": float(np.mean(np.log2(codebook_sizes))),
        "order_0_bits_per_code": round(float(order0), 4),
        "frechet_distance": frechet(pictures, test, cache),
    }


def decode(codes: CodeSet, draw: Callable[[int, int], Tensor], count: int) -> np.ndarray:
    """So many images of drawn codes, (count, H, W, C) uint8."""
    tokenizer, _ = checkpoint.read(codes.folder / TOKENIZER)
    _, height, width = codes.shape
    pictures = []
    for start in range(0, count, 256):
        with torch.no_grad():
            images = tokenizer.decode(draw(start, min(start + 256, count)))  # type: ignore[operator]
        pictures.append(to_pixels(images[..., :height, :width]))
    return np.concatenate(pictures)


def quality(options: argparse.Namespace) -> None:
    codes = open_codes(options.codes)
    test = data.load(options.source, split="test", cache=options.cache)
    count = min(SAMPLES, len(test))
    row: dict[str, Any] = {"name": options.run, "minutes": options.minutes, "settings": options.set,
                           "tokenizer": codes.about.tokenizer[:16], "codes": codes.fingerprint[:16],
                           "groups": codes.about.groups, "cpu": machine.cpu()}  # fmt: skip
    if options.run == "pixelcnn":
        row["like"] = options.like
    if options.run == "floor":
        row |= floor(codes, test, options.cache)
    else:
        if options.run == "pixelcnn":
            trained, draw = train_pixelcnn(options.like, codes, options.minutes)
        else:
            trained, draw = train_prior(options.run, options.set, codes, options.minutes, options.keep, options.weights)
        print(row | trained, flush=True)
        distances, began, away = dict[str, float](), time.process_time(), 0.0
        guidances = [1.0] if options.run == "pixelcnn" else options.guidances
        for temperature, guidance in itertools.product(options.temperatures, guidances):
            how = f"{temperature:g}" + (f", guidance {guidance:g}" if guidance != 1 else "")
            pictures = decode(codes, functools.partial(draw, temperature=temperature, guidance=guidance), count)
            pause = time.process_time()
            distances[how] = frechet(pictures, test, options.cache)
            print(how, distances, flush=True)
            if options.keep is not None:
                name = f"{options.run}-{options.minutes:g}-{how.replace(', guidance ', '-')}.png"
                write_png(options.keep / name, grid(pictures[:64], scale=2))
            away += time.process_time() - pause
        seconds = time.process_time() - began - away
        row |= trained | {"samples_per_second": round(count * len(distances) / seconds, 1),
                          "frechet_distance": min(distances.values()), "temperatures": distances}  # fmt: skip
    print(row, flush=True)
    path = machine.RESULTS / "prior_quality.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    same = ("name", "minutes", "settings", "codes", "like")
    for old in rows:
        if all(old.get(key) == row.get(key) for key in same) and options.weights is not None:
            row["temperatures"] = old["temperatures"] | row["temperatures"]
            row["frechet_distance"] = min(row["temperatures"].values())
    rows = [old for old in rows if any(old.get(key) != row.get(key) for key in same)] + [row]
    machine.write("prior_quality", {"rows": rows})


def speed(options: argparse.Namespace) -> None:
    """Processor seconds for some images at once, the best of three in turn."""
    codes = open_codes(options.codes)
    setting = PriorRecipe.context_for(codes, CPU, Machine().resolve()[1])
    causal = PriorRecipe(preset("prior-nano"), setting).export()
    # In the networks of the causal one, so that only the way differs.
    masked = PriorRecipe(override(preset("prior-nano"), ["model.order=masked"]), setting).export()

    def again(count: int) -> Tensor:
        """Every code from a pass over those before it."""
        prior, uniform = ready(causal.prior), uniform_numbers(causal.prior, range(count), 0, 1, CPU)
        tokens = torch.zeros(count, prior.length, prior.inner, dtype=torch.int64)
        for at in range(prior.length):
            start = prior.first.expand(count, 1, -1)
            before = (prior.embed(tokens) + prior.known())[:, :at]
            x = torch.cat([start, before], dim=1) + prior.asked()[: at + 1]
            mask = torch.ones(1, 1, at + 1, at + 1, dtype=torch.bool).tril()
            features = prior._through(x, None, mask, None)[:, -1:]
            for number in range(prior.inner):
                logits = prior.next_logits(features, tokens[:, at : at + 1, :number], at)[:, 0]
                tokens[:, at, number] = choose(logits, uniform[:, 0, at, number], Sampling())[0]
        return prior.codes(tokens)

    ways: dict[str, Callable[[range], Tensor]] = {
        "causal, cached": lambda numbers: causal.draw(numbers, 0, Sampling()),
        "causal, prefix again": lambda numbers: again(len(numbers)),
        "masked, 10 steps": lambda numbers: masked.draw(numbers, 0, Sampling()),
    }

    def seconds_of(way: Callable[[range], Tensor], count: int, block: int) -> float:
        began = time.process_time()
        with torch.no_grad(), setting.autocast():
            for start in range(0, count, block):
                way(range(start, start + block))
        return time.process_time() - began

    rows = []
    for count in (1, 64):
        best = dict.fromkeys(ways, math.inf)
        for _ in range(3):
            for name, way in ways.items():
                best[name] = min(best[name], seconds_of(way, count, count))
        rows += [{"images": count, "way": name, "images_per_second": round(count / seconds, 1),
                  "times_as_fast_as_prefix_again": round(best["causal, prefix again"] / seconds, 2),
                  "times_as_fast_as_cached": round(best["causal, cached"] / seconds, 2)}
                 for name, seconds in best.items()]  # fmt: skip
    machine.table([tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)])
    blocks = []
    for name in ("causal, cached", "masked, 10 steps"):
        times = {64: min(seconds_of(ways[name], 64, BLOCK) for _ in range(2))}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        times[256] = min(seconds_of(ways[name], 256, BLOCK) for _ in range(2))
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        blocks.append({"way": name, "block": BLOCK, "images_per_second": round(256 / times[256], 1),
                       "time_of_256_over_that_of_64": round(times[256] / times[64], 2),
                       "more_memory_for_256_mib": round(more / 1024, 1)})  # fmt: skip
    machine.table([tuple(blocks[0]), *(tuple(map(str, row.values())) for row in blocks)])
    codes_each = causal.prior.length * causal.prior.inner
    machine.write("prior_speed", {"codes": codes_each, "rows": rows, "in_blocks": blocks})


def show() -> None:
    rows = json.loads((machine.RESULTS / "prior_quality.json").read_text())["rows"]
    keys = ("name", "minutes", "settings", "groups", "images_seen", "parameters", "bits_per_code", "frechet_distance")
    machine.table([keys, *(tuple(str(row.get(key, "")) for key in keys) for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "speed", "table"])
    parser.add_argument("codes", nargs="?")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--run", default="prior-nano", help="a preset of the recipe prior, pixelcnn, or floor")
    parser.add_argument("--like", default="prior-nano", help="whose number of parameters the pixelcnn has")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--set", action="append", default=[], help="a setting that differs from the preset's")
    parser.add_argument("--temperatures", type=lambda text: [float(part) for part in text.split(",")], default=[1.0])
    parser.add_argument("--guidances", type=lambda text: [float(part) for part in text.split(",")], default=[1.0])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--weights", type=Path, help="what --keep kept of the same training: more ways of drawing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"quality": lambda: quality(options), "speed": lambda: speed(options), "table": show}[options.what]()


if __name__ == "__main__":
    main()
