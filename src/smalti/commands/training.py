"""`smalti train`."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smalti import data, shell
from smalti.config import RunConfig, override, parse_count, parse_duration, parse_size, read_toml
from smalti.data import PackedImages
from smalti.layers.ranks import barrier, rank
from smalti.machine import Machine, end_ranks, start_ranks
from smalti.presets import preset
from smalti.progress import TerminalReporter
from smalti.recipes import RECIPES
from smalti.train import Result, Silent, train

ENDLESS = 10**13  # images, for a training that the clock ends
HELD_OUT_SPLITS = ("test", "val")


@dataclass(frozen=True)
class TrainingOptions:
    """The command line of `smalti train`, as typed; `direct` maps settings to the options that set them."""

    preset: str
    out: Path
    data: str = "emoji"
    held_out: str | None = None
    images: str | None = None
    budget: str | None = None
    assignments: tuple[str, ...] = ()
    config: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    on_nan: str = "stop"
    license: str = "unspecified"
    cache: Path | None = None
    quiet: bool = False
    direct: dict[str, Any] = field(default_factory=dict)


def configure(options: TrainingOptions) -> RunConfig:
    """The settings a command line asks for.

    Raises:
        ConfigError: an unknown preset or setting, or a value that does not fit.
    """
    config = preset(options.preset)
    from_file = read_toml(options.config) if options.config is not None else []
    config = override(config, [*from_file, *options.assignments])
    plain: dict[str, dict[str, Any]] = {"train": {}, "data": {"source": options.data}}
    for path, value in options.direct.items():
        if value is not None:
            part, name = path.split(".")
            plain[part][name] = parse_size(value) if name == "size" else value
    if options.images is not None:
        plain["train"]["images"] = parse_count(options.images)
    elif options.budget is not None:
        plain["train"]["images"] = ENDLESS
    if options.data == "emoji" and config.data.channels is None:
        # The emoji have an alpha channel; the presets learn pictures, which is easier to look at over white.
        plain["data"].setdefault("channels", 3)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **plain["data"]),
        train=dataclasses.replace(config.train, **plain["train"]),
    )


def open_images(
    config: RunConfig, held_out: str | None, cache: Path | None
) -> tuple[PackedImages, PackedImages | None]:
    """The training images, and those held out for scores: another source's, or the source's own test or val split."""
    choice = config.data
    load = functools.partial(data.load, resize=choice.resize, cache=cache)
    images = load(choice.source, split=choice.split, size=choice.size, channels=choice.channels)
    channels, height, width = images.shape
    load = functools.partial(load, size=(height, width), channels=channels)
    if held_out is not None:
        return images, load(held_out)
    for split in HELD_OUT_SPLITS:
        if split in images.splits and split != images.split:
            return images, load(choice.source, split=split)
    return images, None


def run_training(options: TrainingOptions) -> int:
    """Train as the command line says; returns the exit code."""
    config = configure(options)
    budget_seconds = parse_duration(options.budget) if options.budget is not None else None
    machine = Machine(options.device, options.precision, options.compile)
    device, _ = machine.resolve()
    start_ranks(device)
    try:
        if rank() == 0:
            images, held_out = open_images(config, options.held_out, options.cache)
            _say_what_was_skipped(images)
        barrier()
        if rank() != 0:  # packed by now, so this only opens it
            images, held_out = open_images(config, options.held_out, options.cache)
        quiet = options.quiet or rank() != 0
        reporter = TerminalReporter(RECIPES[config.recipe].headline, budget_seconds=budget_seconds, quiet=quiet)
        if not quiet:
            channels, height, width = images.shape
            shell.note(
                f"{len(images):,} images of {height}x{width}x{channels} from {options.data}; "
                f"recipe {config.recipe}; run folder {options.out}"
            )
        result = train(
            config,
            images,
            options.out,
            held_out=held_out,
            machine=machine,
            budget_seconds=budget_seconds,
            on_nan=options.on_nan,
            license=options.license,
            reporter=Silent() if quiet else reporter,
        )
        if not quiet:
            _say_how_it_ended(result, config)
    finally:
        end_ranks()
    # Another rank may have heard the signal that stopped this one.
    return 128 + (result.signal or signal.SIGINT) if result.reason == "stopped" else 0


def _say_what_was_skipped(images: PackedImages) -> None:
    if not images.skipped:
        return
    name, reason = images.skipped[0]
    more = "; smalti data inspect lists them all" if len(images.skipped) > 1 else ""
    total = len(images.skipped) + len(images)
    shell.note(f"{len(images.skipped)} of {total} files were skipped: {name} ({reason}){more}")


def _say_how_it_ended(result: Result, config: RunConfig) -> None:
    score = result.score
    tail = f"; {score['name']} {score['value']:.4g} on {score['images']} {score['on']} images" if score else ""
    if result.reason == "stopped":
        shell.note(
            f"stopped and saved at {result.images_seen:,} images{tail}. Give the same command again to go on from here."
        )
        return
    shell.note(f"{result.images_seen:,} images in {result.seconds:.0f} s{tail}")
    verb = "reconstruct" if config.recipe == "vqvae" else "generate"
    arguments = "IMAGES... --out FOLDER" if config.recipe == "vqvae" else "--out grid.png"
    shell.note(f"next: smalti {verb} {os.fspath(result.folder)} {arguments}")
