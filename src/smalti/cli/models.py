"""Commands that train a model, and use one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from smalti.cli.apps import app, examples
from smalti.cli.options import Drawing, Prompting, Resize, Running, Settings, Source, Versions

SOURCE, SETTINGS, RUNNING = Source(), Settings(), Running()
DRAWING, PROMPTING = Drawing(), Prompting()


@app.command(
    help_epilogue=examples(
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
    source: Source = SOURCE,
    settings: Settings = SETTINGS,
    running: Running = RUNNING,
) -> int:
    """Train a preset on a source of images. The same command again goes on where it stopped.

    Parameters
    ----------
    preset:
        A named recipe; see: smalti presets.
    out:
        Folder of this run: weights, log, previews. Created, or resumed when it holds this very run.
    """
    from smalti.cli.train import run_training

    return run_training(preset, out, source, settings, running)


@app.command(
    help_epilogue=examples(
        "smalti generate runs/cifar --count 64 --out grid.png",
        "smalti generate runs/cifar/best.safetensors --count 1000 --seed 7 --out samples/",
        "smalti generate runs/cifar --interpolate 3,17 --count 48 --out walk.webp",
        'smalti generate runs/emoji-prior --prompt "red apple" --guidance 2 --out apples.png',
    )
)
def generate(
    model: Path,
    /,
    *,
    out: Path,
    count: int | None = None,
    seed: int = 0,
    drawing: Drawing = DRAWING,
    prompting: Prompting = PROMPTING,
    columns: int | None = None,
    device: str = "cpu",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Draw new images with a trained GAN, or a trained prior.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    out:
        A .png for one grid, or a folder for one file an image; .webp or .gif for a walk.
    count:
        How many images, or frames of a walk. Default: 64.
    seed:
        Image i of a seed is the same however many are drawn.
    columns:
        Pictures in a row of the grid.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """
    from smalti.cli.generate import run_generate

    return run_generate(model, out, count, seed, drawing, prompting, columns, device, overwrite)


@app.command(
    help_epilogue=examples(
        "smalti invert runs/cifar cat.png --resize cover --out inverted/",
        "smalti generate runs/cifar --interpolate inverted/cat.latent.json,5 --out walk.webp",
    )
)
def invert(
    model: Path,
    /,
    *images: Path,
    out: Path,
    label: str | None = None,
    steps: int = 200,
    resize: Resize | None = None,
    device: str = "cpu",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Find the latents whose pictures are most like given images: NAME.latent.json, to draw and walk from.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file of a GAN.
    images:
        Image files, or folders of them.
    out:
        Folder for the latents, the pictures they make, and both side by side.
    label:
        Class to draw them as, for a model that was trained with labels.
    steps:
        Of the search, for each image; more come nearer.
    resize:
        Bring images of another size or mode to the model's: cover, contain or stretch. Default: refuse them.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """
    from smalti.cli.generate import run_invert

    return run_invert(model, images, out, label, steps, resize, device, overwrite)


@app.command(
    help_epilogue=examples(
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
    from smalti.cli.reconstruct import run_reconstruct

    return run_reconstruct(model, images, out, size, resize, effort, device, overwrite)


@app.command(
    help_epilogue=examples(
        "smalti encode runs/photos photos/ --size 64 --out codes/",
        "smalti encode runs/cifar cifar10 --out codes/ --flip",
    )
)
def encode(
    model: Path,
    source: str,
    /,
    *,
    out: Path,
    split: str | None = None,
    size: str | None = None,
    resize: Resize = "cover",
    flip: Annotated[bool, Parameter(negative=())] = False,
    effort: int = 0,
    groups: int | None = None,
    device: str = "cpu",
    cache: Path | None = None,
) -> int:
    """Turn a source of images into the codes of a trained VQ-VAE. The same command again goes on where it stopped.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file.
    source:
        A folder, archive, data set file, or the words cifar10, emoji.
    out:
        Folder for the codes of each split, and a copy of the model that reads them.
    split:
        Encode one split alone.
    size:
        Bring the images to this size first: 64, or 48x64. Default: as they are.
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    flip:
        Encode the images to train on mirrored as well.
    effort:
        Rounds in which the codes are improved after encoding.
    groups:
        Sort the images into so many groups that look alike, and take these for labels.
    device:
        auto, cpu, cuda, cuda:1, mps.
    cache:
        Folder for packed images. Default: the user's cache folder.
    """
    from smalti.cli.encode import run_encode

    return run_encode(model, source, out, split, size, resize, flip, effort, groups, device, cache)


@app.command(
    help_epilogue=examples(
        "smalti decode codes/ --out decoded/",
        "smalti decode codes/ --split test --count 100 --out grid.png",
    )
)
def decode(
    codes: Path,
    /,
    *,
    out: Path,
    split: str | None = None,
    first: int = 0,
    count: int | None = None,
    device: str = "cpu",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Turn codes of smalti encode back into images.

    Parameters
    ----------
    codes:
        The folder that smalti encode wrote.
    out:
        A .png for one grid, or a folder for one file an image.
    split:
        Which split. Default: train, or all where there are no splits.
    first:
        Number of the first image.
    count:
        How many. Default: all that there are, in a grid 64.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """
    from smalti.cli.encode import run_decode

    return run_decode(codes, out, split, first, count, device, overwrite)


@app.command(
    help_epilogue=examples(
        "smalti fill runs/prior photo.png --mask hole.png --out filled/",
        "smalti fill runs/prior photos/ --mask 10,10,12,12 --count 8 --out filled/",
    )
)
def fill(
    model: Path,
    /,
    *images: Path,
    mask: str,
    versions: Versions,
    prompting: Prompting = PROMPTING,
) -> int:
    """Fill a hole in images with what a trained prior draws there; pixels outside the hole stay as they are.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file of a prior; maskgit-small sees all around the hole.
    images:
        Image files, or folders of them.
    mask:
        A picture, white where the hole is; or a box in pixels: x,y,width,height.
    """
    from smalti.cli.edit import run_fill

    return run_fill(model, images, mask, versions, prompting)


@app.command(
    help_epilogue=examples(
        "smalti vary runs/prior photo.png --strength 0.3 --out varied/",
    )
)
def vary(
    model: Path,
    /,
    *images: Path,
    versions: Versions,
    strength: float = 0.3,
    prompting: Prompting = PROMPTING,
) -> int:
    """Draw images like given ones: some of their codes, chosen at random, are drawn anew by a trained prior.

    Parameters
    ----------
    model:
        A run folder (its last save) or a checkpoint file of a prior.
    images:
        Image files, or folders of them.
    strength:
        The share that is drawn anew, above 0; 1 draws other images altogether.
    """
    from smalti.cli.edit import run_vary

    return run_vary(model, images, strength, versions, prompting)


@app.command(
    help_epilogue=examples(
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
    from smalti.cli.reconstruct import run_info

    return run_info(model, json)


@app.command(
    help_epilogue=examples(
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
    from smalti.cli.listing import run_presets

    return run_presets(name)


@app.command(
    help_epilogue=examples(
        "smalti demo",
        "smalti demo --budget 30m --out long-demo",
    )
)
def demo(
    *,
    out: Path = Path("demo"),
    budget: str = "230s",
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
    from smalti.cli.demo import run_demo

    return run_demo(out, budget, seed, cache, overwrite)
