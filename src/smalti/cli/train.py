"""`smalti train`: a preset trained on a source of images or codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import DeviceOptions, OutPath, SourceOptions, TrainingOptions
from smalti.cli.progress import TerminalReporter, counting
from smalti.errors import ConfigError, RankError, arg

if TYPE_CHECKING:
    from smalti.config.run import RunConfig
    from smalti.data.pairs import PairedImages
    from smalti.runtime.device import Machine
    from smalti.training.loop import Result

T = TypeVar("T")

SOURCE, TRAINING, RUNNING = SourceOptions(), TrainingOptions(), DeviceOptions()
# What one does with a trained model, by the first of these methods that its pipeline has.
USES = (
    ("generate", "generate {run} --out grid.png"),
    ("reconstruct", "reconstruct {run} IMAGES... --out FOLDER"),
    ("features", "evaluate encoder {run} --on SOURCE"),
    ("restore", "restore {run} IMAGES... --out FOLDER"),
    ("restyle", "restyle {run} IMAGES... --out FOLDER"),
    ("compress", "compress {run} IMAGES... --out FOLDER"),
)


@app.command(
    help_epilogue=examples(
        "smalti train vqvae --data photos/ --size 64 --out runs/photos --images 3M",
        "smalti train dcgan --data cifar10 --out runs/cifar --budget 30m --set model.loss=hinge",
        "smalti train codec-tiny --start-from zoo:thumb --data icons/ --size 32 --out runs/icons --budget 20m",
        "smalti train denoise --data scans/ --targets clean-scans/ --out runs/scans --budget 30m",
        "smalti train context --of runs/photos --out runs/photos-context",
        "smalti train restore-codes --of runs/photos --data photos/ --out runs/restored",
        "torchrun --nproc-per-node 2 -m smalti train vqvae --data photos.zip --size 64 --out runs/photos",
    )
)
def train(
    preset: str,
    /,
    *,
    out: OutPath,
    of: Path | None = None,
    start_from: Path | None = None,
    source: SourceOptions = SOURCE,
    training: TrainingOptions = TRAINING,
    running: DeviceOptions = RUNNING,
) -> int:
    """Train a preset on a source of images. The same command again resumes where it stopped.

    Parameters
    ----------
    preset:
        A named recipe; see: smalti presets.
    out:
        Folder of this run: weights, log, previews. Created, or resumed if it holds this very run.
    of:
        For a recipe that learns codes: run, checkpoint or zoo:NAME of the VQ-VAE that encodes --data. Default of --data
        is then what it was trained on. For restore-codes: the VQ-VAE whose codes are predicted.
    start_from:
        Start from the weights of a trained model of the same kind, with its model settings: a run, a checkpoint, or
        zoo:NAME.
    """
    from smalti.config.units import parse_duration
    from smalti.runtime.device import Machine, world_size
    from smalti.runtime.distributed import join_process_group, leave_process_group
    from smalti.training.sources import refuse_writing_into_the_data

    config = configure(preset, source, training, start_from)
    refuse_writing_into_the_data(config, out, source.cache)
    budget_seconds = parse_duration(training.budget) if training.budget is not None else None
    machine = Machine(running.device, running.precision, running.compile)
    join_process_group(world_size(), machine.resolve()[0])
    try:
        if of is not None and not config.kind.takes_tokenizer:
            source, of = _encode(of, config, out, source, running, machine), None
            config = configure(preset, source, training, start_from)
        result = _run(config, out, start_from, of, source, running, machine, budget_seconds)
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


def configure(name: str, source: SourceOptions, training: TrainingOptions, start_from: Path | None = None) -> RunConfig:
    """The settings that a command line asks for, on top of the preset of that name.

    With a model to start from, its model settings replace those of the preset.

    Raises:
        ConfigError: an unknown preset or setting, or a value that does not fit.
    """
    from smalti.config.parse import override, read_toml
    from smalti.config.presets import preset
    from smalti.config.run import ENDLESS
    from smalti.config.units import parse_count, parse_size

    from_file = read_toml(training.config) if training.config is not None else []
    assignments = [*from_file, *training.set_]
    config = preset(name)
    if start_from is not None:
        from smalti.training.initial import with_settings_of

        config = with_settings_of(config, start_from)
    config = override(config, assignments)
    images = parse_count(training.images) if training.images is not None else None
    if images is None and training.budget is not None and not any(a.startswith("train.images=") for a in assignments):
        images = ENDLESS
    channels = source.channels
    if (source.data or config.data.source) == "emoji" and config.data.channels is None and channels is None:
        channels = 3  # emoji have an alpha channel; the presets learn pictures, which are easier to look at over white
    size = parse_size(source.size) if source.size is not None else None
    data = _with(
        config.data, source=source.data, targets=source.targets, split=source.split, size=size, resize=source.resize,
        channels=channels, flip=source.flip,
    )  # fmt: skip
    loop = _with(config.train, images=images, batch=training.batch, seed=training.seed)
    return dataclasses.replace(config, data=data, train=loop)


def _with(table: T, **options: Any) -> T:
    """A table of settings with those replaced that an option was given for."""
    given = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(table, **given)  # type: ignore[type-var]


def _encode(
    of: Path, config: RunConfig, out: Path, source: SourceOptions, running: DeviceOptions, machine: Machine
) -> SourceOptions:
    """Encode the images with the VQ-VAE of a run; returns the options with codes in place of images.

    Raises:
        ConfigError: the recipe learns no codes, or the run folder is inside the images.
        CheckpointError: the run is not of a VQ-VAE.
        DataError: the images are not there.
    """
    from smalti.config.kinds import KINDS
    from smalti.config.units import parse_size
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.base import load_as
    from smalti.runtime.distributed import rank
    from smalti.training.encoded import encode_for_training, images_of
    from smalti.training.sources import refuse_writing_into_the_data

    if config.kind.data != "codes":
        learners = " and ".join(name for name, kind in KINDS.items() if kind.data == "codes")
        raise ConfigError(
            f"{arg('of', of)} is for the recipes that learn codes, {learners}, but {config.recipe} learns images; "
            f"leave {arg('of')} out"
        )
    model = load_as(of, Autoencoder, device=str(machine.resolve()[0]))
    default = images_of(model) if source.data is None else model.card.config.data
    size = parse_size(source.size) if source.size is not None else None
    images = _with(
        dataclasses.replace(default, flip=False),
        source=source.data, size=size, resize=source.resize, flip=source.flip,
    )  # fmt: skip
    refuse_writing_into_the_data(dataclasses.replace(config, data=images), out, source.cache)
    quiet = running.quiet or rank() != 0

    def codes_of(name: str) -> str:
        if not quiet:
            console.note(f"encoding {name} with {of}")
        with counting("encoding", quiet=quiet) as tell:
            chosen = dataclasses.replace(images, source=name)
            return str(encode_for_training(model, chosen, cache=source.cache, progress=tell))

    held_out = None if source.held_out is None else codes_of(source.held_out)
    return dataclasses.replace(
        source, data=codes_of(images.source), held_out=held_out, size=None, resize=None, flip=None
    )


def _run(
    config: RunConfig,
    out: Path,
    start_from: Path | None,
    of: Path | None,
    source: SourceOptions,
    running: DeviceOptions,
    machine: Machine,
    budget_seconds: float | None,
) -> Result:
    """Open the data, train, and say on the first rank what is done."""
    from smalti.data.codes import CodeSet
    from smalti.data.pairs import PairedImages
    from smalti.runtime.distributed import rank
    from smalti.training.loop import train
    from smalti.training.reporter import SilentReporter
    from smalti.training.sources import open_training_data

    quiet = running.quiet or rank() != 0
    with counting("packing", quiet=quiet) as packing:
        images, held_out = open_training_data(
            config, source.held_out, source.cache, packing, held_out_targets=source.held_out_targets
        )
    if rank() == 0 and isinstance(images, PairedImages):
        _note_no_pairs(images)
    elif rank() == 0:
        console.note_skipped(images)
    if not quiet:
        shape = images.spec.image.shape if isinstance(images, CodeSet) else images.spec.shape
        kind = (
            "codes of images" if isinstance(images, CodeSet)
            else "pairs of images" if isinstance(images, PairedImages) and images.matched
            else "images"
        )  # fmt: skip
        console.note(
            f"{len(images):,} {kind} of {'x'.join(map(str, (*shape[1:], shape[0])))} from {config.data.source}; "
            f"recipe {config.recipe}; run folder {out}"
        )
    headline = config.kind.load_recipe().headline
    result = train(
        config,
        images,
        out,
        held_out=held_out,
        start_from=start_from,
        of=of,
        machine=machine,
        budget_seconds=budget_seconds,
        on_nan=running.on_nan,
        on_collapse=running.on_collapse,
        license=running.license,
        reporter=SilentReporter() if quiet else TerminalReporter(headline, budget_seconds=budget_seconds),
    )
    if not quiet:
        _say_how_it_ended(result, config)
    return result


def _note_no_pairs(pairs: PairedImages) -> None:
    """A remark on the images that were left out."""
    from smalti.data.sources import first_of

    if pairs.skipped:
        console.note(
            f"left out {len(pairs.skipped):,} images that are no pair or cannot be read: {first_of(pairs.skipped)}"
        )


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
    console.suggest(*next_command(config.kind.load_pipeline(), result.folder))


def next_command(pipeline: type, run: Path) -> list[str]:
    """The words of a command that makes use of a trained model, decided by what its pipeline can do."""
    use = next((words for method, words in USES if hasattr(pipeline, method)), "info {run}")
    return [word.format(run=run) for word in use.split()]
