"""Reconstruction for 576 bits an image: smalti's presets and quantizers against a peer, at equal processor time.

    python bench/vq_quality.py SOURCE --run peer --minutes 10
    python bench/vq_quality.py SOURCE --run vqvae-best --minutes 10
    python bench/vq_quality.py SOURCE --run leaderboard --minutes 1 --seeds 3 --frechet 1
    python bench/vq_quality.py SOURCE --run usage --minutes 5 --seeds 3
    python bench/vq_quality.py SOURCE --precision
    python bench/vq_quality.py SOURCE --table

A run trains for so many minutes of processor time (one thread, so processor minutes; `time.process_time`, which other
work on the machine does not distort), what comes before the first step included, and is then measured on the 10,000
test images. `peer` is the network of the preset `vqvae`, trained by the same loop, with the EMA quantizer of
vector-quantize-pytorch in the place of ours. `leaderboard` trains one autoencoder with every quantizer at 576 bits,
`usage` the preset `vqvae` with 512 and with 8192 codes. `--precision` trains a narrow network with every quantizer for
500 steps in bf16, and from there for 500 more in float32 and in bf16, and writes results/vq_precision.json. Each other
run adds its row to results/vq_quality.json, and with --keep FOLDER its weights are kept.

SOURCE needs a train and a test split; figures in the repository are from the JPEG copy of CIFAR-10.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import machine
import torch
from torch import Tensor

from smalti import data
from smalti.checkpoint import file as checkpoint
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.quantizer import (
    BinaryConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data import PackedImages
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import extractor
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.metrics.distribution import measure_distribution
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.refinement import refine
from smalti.quantize import Quantizer, perplexity
from smalti.quantize.examples import Examples
from smalti.recipes import TrainingContext
from smalti.recipes.vqvae import VQVAERecipe
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_pixels, to_tensor
from smalti.training.batches import first_batches, open_feed

NAME = "vq_quality"
CPU = torch.device("cpu")
WARM_UP_STEPS = 20  # before the speed is known well enough to say how long the training will be

# Every quantizer at 64 places of 9 bits, on the same autoencoder.
LEADERBOARD: dict[str, QuantizerConfig] = {
    "vector, EMA": VectorConfig(codes=512, dimension=64),
    "vector, EMA, 8 numbers": VectorConfig(codes=512, dimension=8),
    "vector, EMA, projected to 8": VectorConfig(codes=512, dimension=64, projection=8),
    "vector, EMA, unit length, 8": VectorConfig(codes=512, dimension=8, normalize=True),
    "vector, gradient": VectorConfig(codes=512, dimension=64, update="gradient"),
    "vector, EMA, rotation": VectorConfig(codes=512, dimension=64, gradient="rotation"),
    "vector, DiVeQ": VectorConfig(codes=512, dimension=64, update="gradient", gradient="diveq"),
    "simvq": SimConfig(codes=512, dimension=64),
    "scalar (FSQ)": ScalarConfig(levels=(8, 8, 8)),
    "binary (BSQ)": BinaryConfig(bits=9, spherical=True),
    "binary (LFQ)": BinaryConfig(bits=9, spherical=False),
    "residual, 3 x 8 codes": ResidualConfig(layer=VectorConfig(codes=8, dimension=64), depth=3),
    "product, 3 x 8 codes": ProductConfig(layer=VectorConfig(codes=8, dimension=8), groups=3),
}


class PeerQuantizer(Quantizer):
    """The EMA quantizer of vector-quantize-pytorch behind smalti's interface."""

    def __init__(self, config: VectorConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize

        self.codebook_sizes, self.dimension = (config.codes,), config.dimension
        self.layer = VectorQuantize(
            dim=config.dimension,
            codebook_size=config.codes,
            decay=config.decay,
            commitment_weight=config.commitment,
            kmeans_init=True,  # both as its documentation advises against unused codes
            threshold_ema_dead_code=2,
            rotation_trick=False,
        )

    def quantize_rows(self, rows: Tensor, *, committed: Tensor, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        values, codes, loss = self.layer(rows[None])
        return values[0], codes[0][:, None], loss.sum()

    def encode_rows(self, rows: Tensor) -> Tensor:
        training = self.layer.training
        self.layer.eval()
        codes = self.layer(rows[None])[1][0][:, None]
        self.layer.train(training)
        return codes

    def decode_rows(self, codes: Tensor) -> Tensor:
        return self.layer.get_output_from_indices(codes[:, 0])


class PeerRecipe(VQVAERecipe):
    """The preset's training with the peer's quantizer."""

    def __init__(self, config: RunConfig, setting: TrainingContext) -> None:
        super().__init__(config, setting)
        assert isinstance(self.model.quantizer, VectorConfig)
        self.autoencoder.quantizer = PeerQuantizer(self.model.quantizer)
        self.add_optimizer("autoencoder", self.autoencoder, self.model.optimizer)
        self.add_average("autoencoder")


def train(
    config: RunConfig,
    images: PackedImages,
    *,
    minutes: float,
    precision: str,
    recipe: Callable[[RunConfig, TrainingContext], VQVAERecipe] = VQVAERecipe,
    say: Callable[[str], None] = print,
) -> tuple[VQVAERecipe, dict[str, Any]]:
    """Train for some minutes of processor time; schedules run out with them."""
    began, budget = time.process_time(), 60 * minutes
    trainer = recipe(config, TrainingContext(images.spec, 0, CPU, precision))
    seed, batch = config.train.seed, config.train.batch
    trainer.start(lambda: first_batches(trainer, images, config.data, seed))
    feed = open_feed(trainer, images, config.data)
    fitted = first = time.process_time()
    seen, step, told = 0, 0, 0
    while (spent := time.process_time() - began) < budget:
        if step == WARM_UP_STEPS:
            first, first_seen = time.process_time(), seen
        if step > WARM_UP_STEPS and step % 20 == 0:
            speed = (seen - first_seen) / (time.process_time() - first)
            trainer.horizon = round(seen + speed * (budget - spent))
        terms = trainer.step(feed.batch(seed, seen, batch), seen)
        seen, step = seen + batch, step + 1
        if 10 * spent / budget >= told + 1:
            told += 1
            say(
                f"  {spent / 60:5.1f} min  {seen:9,} images  "
                + "  ".join(f"{k} {float(v):.4g}" for k, v in terms.items())
            )
    ended = time.process_time()
    return trainer, {
        "images_seen": seen,
        "processor_minutes": round((ended - began) / 60, 2),
        "minutes_before_the_first_step": round((fitted - began) / 60, 2),
        "step_ms": round(1000 * (ended - fitted) / max(step, 1), 1),
        "images_per_second": round(seen / (ended - fitted), 1),
    }


def refined_psnr_db(model: Autoencoder, test: PackedImages, *, precision: str, effort: int) -> float:
    """PSNR with codes improved against the decoder (models/autoencoder/refinement.py): the same bits."""
    error, values = 0.0, 0
    setting = TrainingContext(test.spec, 0, CPU, precision)
    for start in range(0, len(test), 250):
        pixels = test.pixels(range(start, min(start + 250, len(test))))
        with torch.no_grad(), setting.autocast():
            codes = refine(model, to_tensor(pixels), rounds=effort)
            result = to_pixels(model.decode(codes))[:, : test.shape[1], : test.shape[2]]
        part, count = squared_error_uint8(pixels, result)
        error, values = error + part, values + count
    return psnr_db(error, values)


def measure(
    model: Autoencoder, test: PackedImages, *, precision: str, frechet: bool, cache: Path | None
) -> dict[str, Any]:
    """PSNR pooled over all test pixels, perplexity (mean over the planes), and the distance of features if asked."""
    error, values, results = 0.0, 0, []
    counts = torch.zeros(len(model.quantizer.codebook_sizes), max(model.quantizer.codebook_sizes), dtype=torch.int64)
    setting = TrainingContext(test.spec, 0, CPU, precision)
    for start in range(0, len(test), 500):
        pixels = test.pixels(range(start, min(start + 500, len(test))))
        with torch.no_grad(), setting.autocast():
            codes = model.encode(to_tensor(pixels)).codes
            result = to_pixels(model.decode(codes))[:, : test.shape[1], : test.shape[2]]
        part, count = squared_error_uint8(pixels, result)
        error, values = error + part, values + count
        results.append(result)
        for plane, row in enumerate(codes.flatten(2).transpose(0, 1).flatten(1)):
            counts[plane] += torch.bincount(row, minlength=counts.shape[1])
    cells = codes[0].numel() // len(model.quantizer.codebook_sizes)
    row: dict[str, Any] = {
        "test_images": len(test),
        "bits_per_image": round(cells * sum(math.log2(size) for size in model.quantizer.codebook_sizes), 1),
        "psnr_db": round(psnr_db(error, values), 3),
        "perplexity": round(float(torch.stack([perplexity(plane) for plane in counts]).mean()), 1),
        "codebook_sizes": model.quantizer.codebook_sizes[0],
        "planes": len(model.quantizer.codebook_sizes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if frechet:
        network = extractor("efficientnet-lite0", precision="bfloat16")
        import numpy as np

        real = collect(test, network, cache=cache)
        fake = collect(ArrayImages(np.concatenate(results)), network)
        figures = {figure.name: figure.value for figure in measure_distribution(real, fake)}
        row["frechet_distance"] = round(figures["frechet_distance"], 2)
        row["frechet_protocol"] = "efficientnet-lite0, 128 px, bfloat16, reconstructions against their originals"
    return row


def entries(wanted: str) -> dict[str, tuple[RunConfig, Callable[[RunConfig, TrainingContext], VQVAERecipe]]]:
    """The trainings a --run asks for, by the name of their row."""
    if wanted == "peer":
        return {"peer": (preset("vqvae"), PeerRecipe)}
    if wanted == "leaderboard":
        base = preset("vqvae")
        assert isinstance(base.model, VQVAEConfig)
        models = {name: dataclasses.replace(base.model, quantizer=quantizer) for name, quantizer in LEADERBOARD.items()}
        return {name: (dataclasses.replace(base, model=model), VQVAERecipe) for name, model in models.items()}
    if wanted == "usage":
        sizes = {f"vqvae, {codes} codes": f"model.quantizer.codes={codes}" for codes in (512, 8192)}
        return {name: (override(preset("vqvae"), [size]), VQVAERecipe) for name, size in sizes.items()}
    return {wanted: (preset(wanted), VQVAERecipe)}


def compare_precisions(images: PackedImages, test: PackedImages, *, steps: int = 500, batch: int = 64) -> None:
    """Train every quantizer in bf16, then on in float32 and in bf16 from there, into results/vq_precision.json.

    From the same place, because where 500 steps lead from nothing is chance: seeds differ by tenths of a dB.
    """
    rows = []
    for name, (config, recipe) in entries("leaderboard").items():
        config = override(
            config,
            ["model.autoencoder.width=32", "model.autoencoder.residual_width=16", "model.optimizer.schedule=cosine",
             f"train.images={2 * steps * batch}", "train.ema_half_life=2000"],
        )  # fmt: skip

        def on(trainer: VQVAERecipe, first: int, config: RunConfig = config) -> int:
            """So many steps more; returns how many values were not finite."""
            found, feed = 0, open_feed(trainer, images, config.data)
            for seen in range(first * batch, (first + steps) * batch, batch):
                terms = trainer.step(feed.batch(0, seen, batch), seen)
                found += sum(not math.isfinite(float(value)) for value in terms.values())
            return found

        start = recipe(config, TrainingContext(images.spec, 0, CPU, "bfloat16"))
        wrong = on(start, 0)
        found: dict[str, float] = {}
        for precision in ("float32", "bfloat16"):
            trainer = recipe(config, TrainingContext(images.spec, 0, CPU, precision))
            trainer.load_state_dict(copy.deepcopy(start.state_dict()))
            wrong += on(trainer, steps)
            measured = measure(trainer.export(), test, precision=precision, frechet=False, cache=None)
            found[precision] = measured["psnr_db"]
        rows.append({"name": name, **found, "not_finite": wrong})
        print(rows[-1], flush=True)
    machine.write("vq_precision", {"steps": steps, "batch": batch, "rows": rows})


def keep(path: Path, model: Autoencoder, config: RunConfig, images: PackedImages, trained: dict[str, Any]) -> None:
    """Write the weights with their card."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data_of_it = {
        "source": Path(images.source).name,
        "split": images.split,
        "fingerprint": images.fingerprint,
        "images": len(images),
    }
    checkpoint.write(
        path, model, checkpoint.Card("vqvae", config, images.shape, (), trained["images_seen"], data_of_it)
    )


def add_row(row: dict[str, Any]) -> None:
    """Into the results file, in the place of an older row of the same training."""
    path = machine.RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    same = ("name", "minutes", "seed", "settings")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row]
    machine.write(NAME, {"rows": sorted(rows, key=lambda old: (old["minutes"], old["name"], old["seed"]))})


COLUMNS = ("psnr_db", "psnr_db_effort_16", "perplexity", "frechet_distance", "images_seen", "step_ms", "peak_memory_mb")


def show() -> None:
    """Every training so far, a row each: means over its seeds, and for several seeds the standard deviation."""
    rows = json.loads((machine.RESULTS / f"{NAME}.json").read_text())["rows"]
    trainings: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        trainings.setdefault((row["name"], " ".join(row["settings"]), f"{row['minutes']:g}"), []).append(row)
    lines = [("name", "settings", "minutes", "seeds", *COLUMNS)]
    for labels, seeds in trainings.items():
        lines.append((*labels, str(len(seeds)), *(_mean(seeds, column) for column in COLUMNS)))
    machine.table(lines)


def _mean(rows: list[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows if column in row]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.5g}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--run", help="peer, leaderboard, or the name of a preset")
    parser.add_argument("--only", help="of the leaderboard, this row alone")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1, help="train with the seeds 0 up to this number")
    parser.add_argument("--set", action="append", default=[], help="change a setting, as in smalti train")
    parser.add_argument("--frechet", type=int, default=0, help="the Frechet distance too, for so many of the seeds")
    parser.add_argument("--effort", type=int, default=0, help="also the PSNR with codes improved in so many rounds")
    parser.add_argument("--keep", type=Path, help="folder to keep the weights in")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--precision", action="store_true", help="compare bf16 with float32, and nothing else")
    parser.add_argument("--table", action="store_true", help="print all rows so far, and train nothing")
    options = parser.parse_args()
    if options.table:
        show()
        return
    if not options.run and not options.precision:
        parser.error("give --run, --precision or --table")
    if options.precision:
        compare_precisions(*_images(options))
        return
    for seed in range(options.seeds):
        for name in entries(options.run):
            if not options.only or name == options.only:
                # A process of its own, whose largest memory is that of this training.
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
                    alone.submit(one, options, name, seed).result()


def one(options: argparse.Namespace, name: str, seed: int) -> None:
    """One training and its row."""
    images, test = _images(options)
    _, precision = Machine(device="cpu").resolve()
    config, recipe = entries(options.run)[name]
    config = override(config, [*options.set, f"train.seed={seed}"])
    print(f"{name}, seed {seed}, {options.minutes:g} min", flush=True)
    trainer, trained = train(config, images, minutes=options.minutes, precision=precision, recipe=recipe)
    model = trainer.export()
    row = {"name": name, "minutes": options.minutes, "seed": seed, "settings": options.set, **trained}
    row["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    row["precision"] = precision
    if options.keep and recipe is VQVAERecipe:
        keep(options.keep / f"{name}-{options.minutes:g}-{seed}.safetensors", model, config, images, trained)
    row |= measure(model, test, precision=precision, frechet=seed < options.frechet, cache=options.cache)
    add_row(row)
    if options.effort:
        began = time.process_time()
        found = refined_psnr_db(model, test, precision=precision, effort=options.effort)
        row[f"psnr_db_effort_{options.effort}"] = round(found, 3)
        row["effort_ms_per_image"] = round(1000 * (time.process_time() - began) / len(test), 1)
        add_row(row)
    print(json.dumps(row), flush=True)


def _images(options: argparse.Namespace) -> tuple[PackedImages, PackedImages]:
    torch.set_num_threads(1)
    first, second = (data.load(options.source, split=split, cache=options.cache) for split in ("train", "test"))
    return first, second


if __name__ == "__main__":
    main()
