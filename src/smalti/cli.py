"""The command line: a thin shell over `smalti.api`, `smalti.train` and `smalti.data`.

torch is imported inside the commands that need it, so that help and mistakes answer at once.
A mistake of the user's is one line on stderr and an exit code that is not 0: 1 for what was found (files, models,
data), 2 for what was typed, 128 + n when signal n ended it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from smalti import __version__, shell
from smalti.commands.request import Measuring, Reading, Resize, Writing
from smalti.errors import SmaltiError

app = App(
    name="smalti",
    version=__version__,
    help="Train GANs and VQ-VAEs on your own images, then generate, reconstruct and measure.",
    help_format="plaintext",
    help_epilogue="First steps: smalti demo    Every command has examples: smalti train --help",
    result_action="return_value",
)
data_app = App(name="data", help="Look at a source of images, or pack it for training.", help_format="plaintext")
app.command(data_app)
evaluate_app = App(
    name="evaluate",
    help="Measure a model or any images; every figure carries its interval and its protocol.",
    help_format="plaintext",
)
app.command(evaluate_app)


READING, MEASURING, WRITING = Reading(), Measuring(), Writing()


def _examples(*commands: str) -> str:
    return "\n".join(["Examples:", *(f"  {command}" for command in commands)])


@app.command(
    help_epilogue=_examples(
        "smalti train vqvae --data photos/ --size 64 --out runs/photos --images 3M",
        "smalti train dcgan --data cifar10 --out runs/cifar --budget 30m --set model.loss=hinge",
        "torchrun --nproc-per-node 2 -m smalti train vqvae --data photos.zip --size 64 --out runs/photos",
    )
)
def train(
    preset: str,
    /,
    *,
    out: Path,
    data: str | None = None,
    held_out: str | None = None,
    images: str | None = None,
    budget: str | None = None,
    batch: int | None = None,
    split: str | None = None,
    size: str | None = None,
    resize: Resize | None = None,
    channels: Literal[1, 3, 4] | None = None,
    flip: bool | None = None,
    seed: int | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    config: Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: Annotated[bool, Parameter(negative=())] = False,
    on_nan: Literal["stop", "rollback"] = "stop",
    license: str = "unspecified",
    cache: Path | None = None,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Train a preset on a source of images. The same command again goes on where it stopped.

    Parameters
    ----------
    preset:
        A named recipe; see: smalti presets.
    out:
        Folder of this run: weights, log, previews. Created, or resumed when it holds this very run.
    data:
        A folder, .zip, .tar(.gz,.xz), CIFAR-10, IDX or .npz; or the words cifar10, emoji. Default: the preset's
        source, emoji.
    held_out:
        Source of images for scores and previews; default: the source's own test or val split, where it has one.
    images:
        End after this many images: 200000, 200k, 3M.
    budget:
        End after this much time: 90s, 10m, 1.5h. Without --images nothing else ends the training.
    batch:
        Images in a step, over all processes.
    split:
        Split to train on, for a source that has splits. Default: train.
    size:
        Size to bring every image to: 64, or 48x64 (height x width).
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have; emoji 3.
    flip:
        Mirror images at random.
    seed:
        Decides every random number of the training.
    set_:
        Change any setting, for example --set model.quantizer.codes=1024. Repeatable; see: smalti presets NAME.
    config:
        TOML file of settings, applied before --set.
    device:
        auto, cpu, cuda, cuda:1, mps.
    precision:
        auto takes bfloat16 where the device is fast at it.
    compile:
        Use torch.compile; needs a C compiler and a minute at the start.
    on_nan:
        When a loss becomes NaN or infinite: stop, or go back to the last save with halved learning rates.
    license:
        Licence of the weights, written into the checkpoint.
    cache:
        Folder for packed images. Default: the user's cache folder.
    quiet:
        Print nothing but errors.
    """
    from smalti.commands.training import TrainingOptions, run_training

    options = TrainingOptions(
        preset=preset, out=out, data=data, held_out=held_out, images=images, budget=budget, assignments=set_,
        config=config, device=device, precision=precision, compile=compile, on_nan=on_nan, license=license,
        cache=cache, quiet=quiet,
        direct={
            "train.batch": batch, "data.split": split, "data.size": size, "data.resize": resize,
            "data.channels": channels, "data.flip": flip, "train.seed": seed,
        },
    )  # fmt: skip
    return run_training(options)


@app.command(
    help_epilogue=_examples(
        "smalti generate runs/cifar --count 64 --out grid.png",
        "smalti generate runs/cifar/best.safetensors --count 1000 --seed 7 --out samples/",
    )
)
def generate(
    model: Path,
    /,
    *,
    out: Path,
    count: int = 64,
    label: str | None = None,
    seed: int = 0,
    columns: int | None = None,
    device: str = "cpu",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Draw new images with a trained GAN.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    out:
        A .png for one grid, or a folder for one file an image.
    count:
        How many images.
    label:
        Class to draw, for a model that was trained with labels.
    seed:
        Image i of a seed is the same however many are drawn.
    columns:
        Pictures in a row of the grid.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """
    from smalti.commands.using import run_generate

    return run_generate(model, out, count, label, seed, columns, device, overwrite)


@app.command(
    help_epilogue=_examples(
        "smalti reconstruct runs/photos cat.jpg dog.png --out seen/",
        "smalti reconstruct runs/photos holiday/ --size 64 --out seen/ --effort 16",
    )
)
def reconstruct(
    model: Path,
    images: Annotated[tuple[Path, ...], Parameter(negative=())],
    /,
    *,
    out: Path,
    size: str | None = None,
    resize: Resize = "cover",
    effort: int = 0,
    device: str = "cpu",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Send images through a trained VQ-VAE: the result, a before-and-after pair, and the PSNR of each.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    images:
        Image files, or folders of them (searched to any depth).
    out:
        Folder for NAME.png (the reconstruction) and NAME.pair.png (before above, after below).
    size:
        Bring the images to this size first: 64, or 48x64. Default: as they are.
    resize:
        With --size: cover fills and crops the middle, contain fits and pads, stretch distorts.
    effort:
        Rounds in which the codes are improved after encoding: 16 gain some tenths of a dB, at the cost of time.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """
    from smalti.commands.using import run_reconstruct

    return run_reconstruct(model, images, out, size, resize, effort, device, overwrite)


@app.command(
    help_epilogue=_examples(
        "smalti info runs/photos",
        "smalti info model.safetensors --json",
    )
)
def info(model: Path, /, *, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Print everything a checkpoint says about itself.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    json:
        Print JSON instead of a table.
    """
    from smalti.commands.using import run_info

    return run_info(model, json)


@app.command(
    help_epilogue=_examples(
        "smalti presets",
        "smalti presets vqvae",
    )
)
def presets(name: str | None = None, /) -> int:
    """List the presets, or print every setting of one.

    Parameters
    ----------
    name:
        Preset whose settings to print, each as --set takes it.
    """
    from smalti.commands.listing import run_presets

    return run_presets(name)


@app.command(
    help_epilogue=_examples(
        "smalti demo",
        "smalti demo --budget 30m --out long-demo",
    )
)
def demo(
    *,
    out: Path = Path("demo"),
    budget: str = "250s",
    seed: int = 0,
    cache: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Train a VQ-VAE and a GAN on the emoji that come with smalti, and write a report: under 5 minutes on 2 cores.

    The same command again goes on with a demo that was stopped, and leaves a finished one as it is.

    Parameters
    ----------
    out:
        Folder for both runs, the pictures and report.html.
    budget:
        Time for the two trainings together: 90s, 10m, 1h.
    seed:
        Decides every random number.
    cache:
        Folder for packed images. Default: the user's cache folder.
    overwrite:
        Make the demo again, over the one in the folder.
    """
    from smalti.demo import run_demo

    return run_demo(out, budget, seed, cache, overwrite)


@data_app.command(
    help_epilogue=_examples(
        "smalti data inspect photos.zip",
    )
)
def inspect(
    source: str,
    /,
    *,
    split: str | None = None,
    cache: Path | None = None,
) -> int:
    """Look at a source without packing it: images, sizes, splits, classes, broken files.

    Parameters
    ----------
    source:
        A folder, archive, data set file, or the words cifar10, emoji.
    split:
        Look at one split alone.
    cache:
        Folder where downloads are looked for.
    """
    from smalti.commands.listing import run_inspect

    return run_inspect(source, split, cache)


@data_app.command(
    help_epilogue=_examples(
        "smalti data pack photos/ --size 64",
    )
)
def pack(
    source: str,
    /,
    *,
    split: str | None = None,
    size: str | None = None,
    resize: Resize = "cover",
    channels: Literal[1, 3, 4] | None = None,
    cache: Path | None = None,
) -> int:
    """Decode a source once into the cache that training reads from; train does this by itself when it must.

    Parameters
    ----------
    source:
        A folder, archive, data set file, or the words cifar10, emoji.
    split:
        Split to pack. Default: train, or everything.
    size:
        64, or 48x64 (height x width).
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    cache:
        Folder for packed images. Default: the user's cache folder.
    """
    from smalti.commands.listing import run_pack

    return run_pack(source, split, size, resize, channels, cache)


@evaluate_app.command(
    name="generator",
    help_epilogue=_examples(
        "smalti evaluate generator runs/cifar --against cifar10 --out gan.json --report gan.html",
        "smalti evaluate generator runs/sprites --against sprites/ --features smalti-vit --weights runs/eye",
    ),
)
def evaluate_generator(
    model: Path,
    /,
    *,
    against: str,
    training: str | None = None,
    count: str = "10000",
    classifier_images: str | None = None,
    neighbours: int = 5,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score a GAN: Frechet and kernel distance, precision, recall, density, coverage, and copies of training images.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    against:
        Source of real images, as for smalti train; the model should not have seen those it is held against.
    training:
        Source of the images it was trained on, to look for copies. Default: the training split of --against; none: do
        not look.
    count:
        Images to draw: 10000, 50k.
    classifier_images:
        Also train two classifiers for so many images each (500k is usual), one on drawn and one on real images, and
        test both on real ones: the classification accuracy score. For models with labels.
    neighbours:
        Nearest neighbours that precision, recall, density and coverage look at.
    """
    from smalti.commands.evaluating import Request, run_generator

    return run_generator(
        model, against, training, count, classifier_images, Request(measuring, reading, writing, neighbours)
    )


@evaluate_app.command(
    name="folder",
    help_epilogue=_examples(
        "smalti evaluate folder samples/ --against photos/ --size 64 --out samples.json",
        "smalti evaluate folder cifar10 --split train --against cifar10 --features inception --out floor.json",
    ),
)
def evaluate_folder(
    judged: str,
    /,
    *,
    against: str,
    training: str | None = None,
    neighbours: int = 5,
    judged_split: str | None = None,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score anybody's images against others: the same figures as for a generator.

    Parameters
    ----------
    judged:
        A folder, archive or data set of the images to score.
    against:
        Source of the images they should be like.
    training:
        Source of images that they may have been copied from. Default: do not look for copies.
    neighbours:
        Nearest neighbours that precision, recall, density and coverage look at.
    judged_split:
        Split of the judged images. Default: as --split.
    """
    from smalti.commands.evaluating import Request, run_folder

    return run_folder(judged, against, training, judged_split, Request(measuring, reading, writing, neighbours))


@evaluate_app.command(
    name="autoencoder",
    help_epilogue=_examples(
        "smalti evaluate autoencoder runs/vqvae --on cifar10 --out vqvae.json --report vqvae.html",
    ),
)
def evaluate_autoencoder(
    model: Path,
    /,
    *,
    on: str,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score a VQ-VAE: PSNR, SSIM, MS-SSIM, perceptual and Frechet distance, code usage, perplexity and rate.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    on:
        Source of images it was not trained on.
    """
    from smalti.commands.evaluating import Request, run_autoencoder

    return run_autoencoder(model, on, Request(measuring, reading, writing))


@evaluate_app.command(
    name="encoder",
    help_epilogue=_examples(
        "smalti evaluate encoder runs/eye --on cifar10 --out eye.json",
        "smalti evaluate encoder --features efficientnet-lite0 --on cifar10 --out imagenet.json",
    ),
)
def evaluate_encoder(
    model: Path | None = None,
    /,
    *,
    on: str,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
    writing: Writing = WRITING,
) -> int:
    """Score features by what a linear classifier reads off them: the linear probe, with every class's figures.

    Parameters
    ----------
    model:
        A run folder or checkpoint of the preset smalti-vit. Default: the network that --features names.
    on:
        Source of labelled images with a training and a test split.
    """
    from smalti.commands.evaluating import Request, run_encoder

    return run_encoder(model, on, Request(measuring, reading, writing))


@evaluate_app.command(
    name="compare",
    help_epilogue=_examples(
        "smalti evaluate compare monday.json tuesday.json",
    ),
)
def evaluate_compare(a: Path, b: Path, /) -> int:
    """Print the difference of two records with its interval; refuse, and say why, when they were measured differently.

    Parameters
    ----------
    a:
        A record from smalti evaluate.
    b:
        Another one.
    """
    from smalti.commands.evaluating import run_compare

    return run_compare(a, b)


@evaluate_app.command(
    name="doctor",
    help_epilogue=_examples(
        "smalti evaluate doctor --features smalti-vit",
        "smalti evaluate doctor --on photos/ --size 64 --count 4000",
    ),
)
def evaluate_doctor(
    *,
    on: str = "emoji",
    count: int = 2000,
    reading: Reading = READING,
    measuring: Measuring = MEASURING,
) -> int:
    """Try the metrics on cases whose outcome is known: real halves, blur, noise, copies, a class left out.

    Parameters
    ----------
    on:
        Source of images to make the cases of.
    count:
        Images to take, evenly spread.
    """
    from smalti.commands.evaluating import Request, run_doctor_command

    return run_doctor_command(on, count, Request(measuring, reading, WRITING))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and raises nothing for a user's mistake."""
    try:
        tokens = list(sys.argv[1:] if arguments is None else arguments)
        result = app(tokens, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        shell.complain(" ".join(str(error).split()) + " See: smalti --help")
        return 2
    except SmaltiError as error:
        shell.complain(str(error))
        return 1
    except KeyboardInterrupt:
        shell.complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `smalti presets | head -1` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # The last resort: where a file is opened, the line says more than this one.
        shell.complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not shell.too_little_memory(error):
            raise
        shell.complain("there is too little memory for this; take a smaller --batch, --size or --count")
        return 1


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
