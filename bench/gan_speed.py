"""Training speed of a GAN preset against the same networks in an ordinary PyTorch loop, and memory.

    python bench/gan_speed.py
    python bench/gan_speed.py --preset gan-small --batch 64

Four ways to train on the same batches, a few steps of each in turn, several rounds in one process, loading included:

    smalti   the preset's step with the machine's default precision and channels last, averaged weights included
    float32  the same step in float32
    same     as smalti, with model.resample_for_generator=true and model.penalty.every=1: what `plain` computes
    plain    the same networks written as one would without thinking of speed: eager float32, contiguous NCHW, a pass of
             D for real and one for fake images, whose logits R1 and R2 are taken of too, torch.optim.Adam, averaged
             weights in a loop over the parameters; nothing is computed that the training does not need

Ratios are medians over rounds. The peak of memory is that of a process of its own for each way: on a CPU over what it
had before the first step, on a GPU all that torch allocated. On a CPU also the share of time by operation
(torch.profiler) is printed. Writes results/gan_speed.json, or with --device cuda results/gan_speed_gpu.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import machine
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti import data
from smalti.config.gan import GANConfig
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.data.spec import ImageSpec
from smalti.recipes import Images, TrainingContext
from smalti.recipes.gan import GANRecipe
from smalti.recipes.gan import _position_means as of_judges
from smalti.runtime.device import Machine
from smalti.runtime.pixels import to_tensor
from smalti.runtime.rng import Draws

SHAPE = (3, 32, 32)
SAME = ["model.resample_for_generator=true", "model.penalty.every=1"]


def plain_step(name: str, batch: int, device: torch.device) -> Callable[[Tensor, int], None]:
    model = cast(GANConfig, preset(name).model)
    recipe = GANRecipe(preset(name), TrainingContext(ImageSpec(*SHAPE), device=device))
    generator, judge = (
        net.to(memory_format=torch.contiguous_format) for net in (recipe.generator, recipe.discriminator)
    )
    average = copy.deepcopy(generator)
    draws = Draws(0, 0, device=device)
    rates = model.generator_optimizer, model.discriminator_optimizer
    g_adam, d_adam = (
        torch.optim.Adam(net.parameters(), rate.learning_rate, (rate.beta1, rate.beta2))
        for net, rate in zip((generator, judge), rates, strict=True)
    )

    def critic(images: Tensor, *, generating: bool = False) -> Tensor:
        if recipe.inputs == "pixels":
            return judge(images)
        with torch.set_grad_enabled(generating):
            maps = recipe.discriminator_inputs(images, draws)[1:]
        return judge([images, *maps])

    def penalty(logits: Tensor, images: Tensor) -> Tensor:
        of_pixels = logits if recipe.inputs == "pixels" else of_judges(logits)[:, 0]
        (slope,) = torch.autograd.grad(of_pixels.sum(), images, create_graph=True)
        return slope.square().sum(dim=(1, 2, 3)).mean()

    def step(real: Tensor, _: int) -> None:
        with torch.no_grad():
            fake = generator(torch.randn(batch, model.latent, device=device))
        real, fake = real.contiguous().requires_grad_(), fake.requires_grad_()
        of_real, of_fake = critic(real), critic(fake)
        loss = F.softplus(of_fake - of_real).mean() + 0.25 * (penalty(of_real, real) + penalty(of_fake, fake))
        d_adam.zero_grad()
        loss.backward()
        d_adam.step()
        judge.requires_grad_(False)
        fake = generator(torch.randn(batch, model.latent, device=device))
        with torch.no_grad():
            of_real = critic(real)
        loss = F.softplus(of_real - critic(fake, generating=True)).mean()
        judge.requires_grad_(True)
        g_adam.zero_grad()
        loss.backward()
        g_adam.step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), generator.parameters(), strict=True):
                old.mul_(0.999).add_(new, alpha=0.001)

    return step


def smalti_step(
    name: str, batch: int, device: torch.device, precision: str, *changes: str
) -> Callable[[Tensor, int], None]:
    config = override(preset(name), [f"train.batch={batch}", "model.penalty.gamma=0.5", *changes])
    recipe = GANRecipe(config, TrainingContext(ImageSpec(*SHAPE), device=device, precision=precision))

    def step(real: Tensor, seen: int) -> None:
        recipe.step(Images(real), seen)

    return step


def way(kind: str, name: str, batch: int, device: torch.device) -> Callable[[Tensor, int], None]:
    if kind == "plain":
        return plain_step(name, batch, device)
    precision = "float32" if kind == "float32" else Machine(str(device)).resolve()[1]
    return smalti_step(name, batch, device, precision, *(SAME if kind == "same" else []))


def speeds(name: str, batch: int, device: torch.device, rounds: int, steps: int) -> dict[str, list[float]]:
    ways = {kind: way(kind, name, batch, device) for kind in ("smalti", "float32", "same", "plain")}
    packed = data.load("emoji", split="train", channels=3, size=SHAPE[1:])
    found: dict[str, list[float]] = {kind: [] for kind in ways}
    for number in range(rounds + 1):
        for kind, step in ways.items():
            start = time.perf_counter()
            for index in range(steps):
                step(to_tensor(packed.batch(0, index * batch, batch).images, device), index * batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                found[kind].append(steps * batch / (time.perf_counter() - start))
    return found


def memory(kind: str, name: str, batch: int, device: torch.device) -> float:
    """Peak MiB of a few steps beyond what was there before them, in this process."""
    step = way(kind, name, batch, device)
    images = torch.rand(batch, *SHAPE, device=device) * 2 - 1
    growth = machine.memory_growth() if device.type == "cpu" else None
    for index in range(4):
        step(images, index * batch)
    return torch.cuda.max_memory_allocated() / 2**20 if growth is None else growth()


def in_process(kind: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--measure", kind, "--preset", options.preset,
               "--batch", str(options.batch), "--device", options.device,
               "--threads", str(options.threads)]  # fmt: skip
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def profile(name: str, batch: int, device: torch.device) -> list[dict[str, Any]]:
    """The operations that take most of the time of a step, with their share."""
    step = way("smalti", name, batch, device)
    images = (torch.rand(batch, *SHAPE, device=device) * 2 - 1).contiguous(memory_format=torch.channels_last)
    for index in range(3):
        step(images, index * batch)
    with torch.profiler.profile() as profiler:
        for index in range(5):
            step(images, index * batch)
    gpu = device.type == "cuda"
    events = [(event.key, event.self_device_time_total if gpu else event.self_cpu_time_total)
              for event in profiler.key_averages()]  # fmt: skip
    total = sum(value for _, value in events)
    top = sorted(events, key=lambda pair: -pair[1])[:10]
    return [{"operation": key, "share": round(value / total, 3)} for key, value in top]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gan-nano")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=8, help="of each way in a round; R1 and R2 come in one of 8 of gan-nano"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.measure:
        print(memory(options.measure, options.preset, options.batch, device))
        return
    found = speeds(options.preset, options.batch, device, options.rounds, options.steps)
    peaks = {kind: round(in_process(kind, options), 1) for kind in found}
    medians = {kind: round(statistics.median(values), 1) for kind, values in found.items()}
    ratios = {
        kind: round(statistics.median(a / b for a, b in zip(found["smalti"], found[kind], strict=True)), 2)
        for kind in ("float32", "same", "plain")
    }
    machine.table(
        [("way", "images/s", "smalti is", "peak MiB"),
         *((kind, f"{value:.1f}", f"{ratios[kind]:.2f} times" if kind in ratios else "", f"{peaks[kind]:.0f}")
           for kind, value in medians.items())]
    )  # fmt: skip
    operations = profile(options.preset, options.batch, device)
    machine.table([("operation", "share"), *((row["operation"], f"{row['share']:.1%}") for row in operations)])
    result = {"preset": options.preset, "batch": options.batch, "images_per_second": medians, "ratios": ratios,
              "peak_mib": peaks, "profile": operations}  # fmt: skip
    machine.write("gan_speed" if device.type == "cpu" else "gan_speed_gpu", result)


if __name__ == "__main__":
    main()
