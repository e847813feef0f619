"""`smalti train`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from smalti import data
from smalti.cli import console
from smalti.cli.options import Running, Settings, Source
from smalti.cli.progress import TerminalReporter, counting
from smalti.config.data import DataConfig
from smalti.config.parse import override, read_toml
from smalti.config.presets import preset
from smalti.config.run import ENDLESS, LoopConfig, RunConfig
from smalti.config.units import parse_count, parse_duration, parse_size
from smalti.data import PackedImages
from smalti.data.codes import CodeSet, is_code_set, open_codes
from smalti.errors import ConfigError, DataError, RankError
from smalti.recipes import RECIPES
from smalti.runtime.device import Machine, world_size
from smalti.runtime.distributed import join_process_group, leave_process_group, raise_together, rank
from smalti.training.batches import Data
from smalti.training.loop import Result, SilentReporter, train

Progress = Callable[[int, int | None], None]
T = TypeVar("T", DataConfig, LoopConfig)


# What one does with a run of each recipe.
NEXT = {
    "vqvae": (("reconstruct",), ("IMAGES...", "--out", "FOLDER")),
    "gan": (("generate",), ("--out", "grid.png")),
    "contrastive": (("evaluate", "encoder"), ("--on", "SOURCE")),
    "prior": (("generate",), ("--out", "grid.png")),
}


def configure(name: str, source: Source, settings: Settings) -> RunConfig:
    """The settings a command line asks for, of the preset of that name.

    Raises:
        ConfigError: an unknown preset or setting, or a value that does not fit.
    """
    from_file = read_toml(settings.config) if settings.config is not None else []
    assignments = [*from_file, *settings.set_]
    config = override(preset(name), assignments)
    images = parse_count(settings.images) if settings.images is not None else None
    if images is None and settings.budget is not None and not any(a.startswith("train.images=") for a in assignments):
        images = ENDLESS
    channels = source.channels
    if (source.data or config.data.source) == "emoji" and config.data.channels is None and channels is None:
        channels = 3  # emoji have an alpha channel; the presets learn pictures, which are easier to look at over white
    return dataclasses.replace(
        config,
        data=_with(
            config.data,
            source=source.data,
            split=source.split,
            size=parse_size(source.size) if source.size is not None else None,
            resize=source.resize,
            channels=channels,
            flip=source.flip,
        ),
        train=_with(config.train, images=images, batch=settings.batch, seed=settings.seed),
    )


def _with(table: T, **options: Any) -> T:
    """A table of settings with those replaced that an option was given for."""
    return dataclasses.replace(table, **{name: value for name, value in options.items() if value is not None})


def open_data(
    config: RunConfig, held_out: str | None, cache: Path | None, progress: Progress | None = None
) -> tuple[Data, Data | None]:
    """The training images or codes, and those held out for scores: another source's, or the source's own split."""
    source = config.data.source
    if is_code_set(Path(source)) != (config.recipe == "prior"):
        raise ConfigError(
            f"a prior learns codes, and {source} holds images; write codes with smalti encode RUN SOURCE --out CODES, "
            "then give --data CODES"
            if config.recipe == "prior"
            else f"{source} holds codes, which the recipe prior learns; {config.recipe} learns images, so give some"
        )
    if config.recipe != "prior":
        return open_images(config, held_out, cache, progress)
    if config.data.size is not None or config.data.channels is not None or config.data.shift:
        raise ConfigError("codes have the size that their images were encoded at; give --size to smalti encode")
    if config.data.flip or config.data.resize != DataConfig().resize:
        raise ConfigError("codes can be neither mirrored nor resized; give --flip and --resize to smalti encode")
    codes = open_codes(config.data.source, config.data.split)
    place = Path(held_out or config.data.source)
    if held_out is not None and not is_code_set(place):
        raise DataError(f"--held-out {held_out} holds no codes, which --data {config.data.source} does")
    split = next((s for s in ("val", "test") if (place / s).is_dir() and (held_out or s != codes.split)), None)
    return codes, open_codes(place, split) if held_out or split else None


def open_images(
    config: RunConfig, held_out: str | None, cache: Path | None, progress: Progress | None = None
) -> tuple[PackedImages, PackedImages | None]:
    """The training images, and those held out for scores: another source's, or the source's own val or test split."""
    choice = config.data
    load = functools.partial(data.load, resize=choice.resize, cache=cache, progress=progress)
    images = load(choice.source, split=choice.split, size=choice.size, channels=choice.channels)
    channels, height, width = images.shape
    load = functools.partial(load, size=(height, width), channels=channels)
    if held_out is None:
        split = _held_out_split(images)
        return images, None if split is None else load(choice.source, split=split)
    others = load(held_out)
    split = _held_out_split(others)
    return images, others if split is None else load(held_out, split=split)


def _held_out_split(images: PackedImages) -> str | None:
    """The split of a source that scores should be taken on: val before test, so that test stays unseen."""
    return next((split for split in ("val", "test") if split in images.splits and split != images.split), None)


def run_training(name: str, out: Path, source: Source, settings: Settings, running: Running) -> int:
    """Train as the command line says; returns the exit code."""
    config = configure(name, source, settings)
    _refuse_writing_into_the_data(config, out, source.cache)
    budget_seconds = parse_duration(settings.budget) if settings.budget is not None else None
    machine = Machine(running.device, running.precision, running.compile)
    device, _ = machine.resolve()
    join_process_group(world_size(), device)
    quiet = running.quiet or rank() != 0
    try:
        with raise_together():
            if rank() == 0:
                with counting("packing", quiet=quiet) as packing:
                    images, held_out = open_data(config, source.held_out, source.cache, packing)
                say_what_was_skipped(images)
        with raise_together():
            if rank() != 0:  # packed by now, so this only opens it
                images, held_out = open_data(config, source.held_out, source.cache)
        reporter = TerminalReporter(RECIPES[config.recipe].headline, budget_seconds=budget_seconds)
        if not quiet:
            channels, height, width = images.shape
            kind = "codes of images" if isinstance(images, CodeSet) else "images"
            console.note(
                f"{len(images):,} {kind} of {height}x{width}x{channels} from {config.data.source}; "
                f"recipe {config.recipe}; run folder {out}"
            )
        result = train(
            config,
            images,
            out,
            held_out=held_out,
            machine=machine,
            budget_seconds=budget_seconds,
            on_nan=running.on_nan,
            on_collapse=running.on_collapse,
            license=running.license,
            reporter=SilentReporter() if quiet else reporter,
        )
        if not quiet:
            _say_how_it_ended(result, config)
    except RankError:
        return 1  # the rank that failed says why
    except Exception as error:
        if running.compile and type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            reason = str(error).splitlines()[0]
            raise ConfigError(f"--compile does not work on this machine ({reason}); leave it out") from None
        raise
    finally:
        leave_process_group()
    return 128 + result.signal if result.reason == "stopped" else 0


def _refuse_writing_into_the_data(config: RunConfig, out: Path, cache: Path | None) -> None:
    """What a run writes into its own source would be images of the source the next time it is looked at."""
    source = Path(config.data.source)
    if not source.is_dir():
        return
    for name, place in (("--out", out), ("--cache", cache)):
        if place is not None and place.resolve().is_relative_to(source.resolve()):
            raise ConfigError(f"{name} {place} lies inside the images of --data {source}; give a place outside")


def say_what_was_skipped(images: Data) -> None:
    """How many files of a source could not be read, and one of them."""
    if isinstance(images, CodeSet) or not images.skipped:
        return
    name, reason = images.skipped[0]
    more = "; smalti data inspect lists them all" if len(images.skipped) > 1 else ""
    total = len(images.skipped) + len(images)
    console.note(f"skipped {len(images.skipped)} of {total} files: {name} ({reason}){more}")


def _say_how_it_ended(result: Result, config: RunConfig) -> None:
    score = result.score
    tail = f"; {score['name']} {score['value']:.4g} on {score['images']} {score['on']} images" if score else ""
    if result.reason == "stopped":
        console.note(
            f"stopped and saved at {result.images_seen:,} images{tail}. Give the same command again to go on from here."
        )
        return
    times = f", after {result.rollbacks} rollback{'s' * (result.rollbacks > 1)}" if result.rollbacks else ""
    console.note(f"{result.images_seen:,} images in {result.seconds:.0f} s{times}{tail}")
    if result.reason == "budget":
        console.note("the --budget is used up, over all sessions together; the same command with a larger one goes on")
    verb, arguments = NEXT[config.recipe]
    console.suggest(*verb, result.folder, *arguments)
