"""Types and groups of options with their help, each written once. Imports no torch, so that help answers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from smalti.checkpoint.zoo import refuse_output

Resize = Literal["cover", "contain", "stretch", "crop"]
Channels = Literal[1, 3, 4]
Features = Literal["efficientnet-lite0", "inception", "dinov2", "smalti-vit"]

_RESIZE_HELP = "cover fills and crops the middle, contain fits and pads, stretch distorts, crop does not scale."


def _own_place(name: str) -> Callable[[object, Path | None], None]:
    """A check that an output is no model of the zoo."""

    def check(_: object, path: Path | None) -> None:
        if path is not None:
            refuse_output(path, name)

    return check


# Arguments and flags of several commands.
Flag = Annotated[bool, Parameter(negative=())]
ModelPath = Annotated[Path, Parameter(help="A run folder (its last save), a checkpoint file, or zoo:NAME.")]
GANPath = Annotated[Path, Parameter(help="A GAN: a run folder (its last save), a checkpoint file, or zoo:NAME.")]
OutPath = Annotated[Path, Parameter(validator=_own_place("out"))]
ReportPath = Annotated[Path, Parameter(validator=_own_place("report"))]
SourcePath = Annotated[str, Parameter(help="A folder, archive, data set file, or the words cifar10, emoji.")]
Images = Annotated[Path, Parameter(help="Image files, or folders of them.")]
UnseenImages = Annotated[str, Parameter(help="Source of images it was not trained on.")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")]
Cache = Annotated[Path | None, Parameter(help="Folder for packed images. Default: the user's cache folder.")]
Overwrite = Annotated[bool, Parameter(negative=(), help="Replace existing files.")]
Size = Annotated[str | None, Parameter(help="Size to bring every image to: 64, or 48x64 (height x width).")]
SizeFirst = Annotated[
    str | None, Parameter(help="Bring the images to this size first: 64, or 48x64. Default: as they are.")
]
ResizeRule = Annotated[Resize, Parameter(help=_RESIZE_HELP)]
Neighbours = Annotated[int, Parameter(help="Number of nearest neighbours for precision, recall, density and coverage.")]

# Help that is longer than a line; in a docstring its lines would be broken where they are there.
_FEATURES = (
    "Network whose features are compared. efficientnet-lite0 comes with smalti[bench], dinov2 with smalti[dinov2]; "
    "inception gives FID; smalti-vit is smalti's own, and needs nothing else."
)
_DATA = (
    "A folder, .zip, .tar(.gz,.xz), CIFAR-10, IDX, .npz or .smt; or the words cifar10, emoji. "
    "Default: the preset's source, emoji."
)
_TARGETS = (
    "For restorers and translators: a second source like --data, what should become of its pictures. Partners have the "
    "same name; for restyle-unpaired there are none."
)
_BUDGET = (
    "End after this much time, over all sessions: 90s, 10m, 1.5h. Initialising codebooks before the first step, half "
    "a minute with vqvae-best, is not counted. Without --images nothing else ends the training."
)
_ON_NAN = (
    "When a loss becomes NaN or infinite: stop, or rollback to the last save with halved learning rates. "
    "Default: rollback for a GAN whose --on-collapse is rollback, else stop."
)
_ON_COLLAPSE = (
    "When a GAN collapses or diverges: stop; rollback to the last save and go on with halved learning rates and "
    "doubled gamma; or continue with a warning. After five rollbacks the training stops."
)
_TUNE = (
    "Steps of training the decoder a little on each picture; what it learns is stored in the file if that is worth the "
    "bytes, as it is for large pictures. Not for archives."
)
_INTERPOLATE = (
    "Walk between images, given as numbers of this seed or latent files of smalti invert: 3,17 or cat.latent.json,5. "
    "--count is the number of frames, at most 5000; a .webp or .gif walks there and back. With labels, all frames are "
    "of one class: --label, else that of the first latent file, else that of the first image."
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Which features, and how they are computed.

    Parameters
    ----------
    weights:
        File or folder of the network's weights; for smalti-vit a run folder, a checkpoint file or zoo:NAME of that
        preset. Default: its own place.
    download:
        Fetch weights that are missing.
    feature_size:
        Side in pixels of the network's input. Default: its own size.
    precision:
        bfloat16 is faster; figures of the two are not comparable.
    seed:
        Seed of all random numbers.
    cache:
        Folder for packed images and features. Default: the user's cache folder.
    """

    features: Annotated[Features, Parameter(help=_FEATURES)] = "efficientnet-lite0"
    weights: Path | None = None
    download: Flag = False
    feature_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: Device = "cpu"
    cache: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images are read.

    Parameters
    ----------
    split:
        Split that is measured. Default: test or val if the source has one, else everything.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have.
    """

    split: str | None = None
    size: Size = None
    resize: ResizeRule = "cover"
    channels: Channels | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the record is written.

    Parameters
    ----------
    out:
        File for the record, ending in .json: every figure with its interval and its whole protocol.
    report:
        File for an HTML page with the figures and pictures.
    """

    out: OutPath = Path("evaluation.json")
    report: ReportPath | None = None
    overwrite: Overwrite = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which images a training sees; None leaves it to the preset.

    Parameters
    ----------
    held_out:
        Source of images for scores and previews. Default: the val or test split of the source, if it has one.
    held_out_targets:
        With --targets, the targets of --held-out.
    split:
        Split to train on, for a source that has splits. Default: train.
    channels:
        1 grey, 3 RGB, 4 RGBA. Default: what the images have; emoji 3.
    flip:
        Mirror images at random.
    """

    data: Annotated[str | None, Parameter(help=_DATA)] = None
    targets: Annotated[str | None, Parameter(help=_TARGETS)] = None
    held_out: str | None = None
    held_out_targets: str | None = None
    split: str | None = None
    size: Size = None
    resize: Annotated[Resize | None, Parameter(help=_RESIZE_HELP)] = None
    channels: Channels | None = None
    flip: bool | None = None
    cache: Cache = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training does; None leaves it to the preset.

    Parameters
    ----------
    images:
        End after this many images: 200000, 200k, 3M.
    batch:
        Images in a step, over all processes.
    seed:
        Seed of all random numbers of the training.
    set_:
        Change any setting, for example --set model.quantizer.codes=1024. Repeatable; see: smalti presets NAME.
    config:
        TOML file of settings, applied before --set.
    """

    images: str | None = None
    budget: Annotated[str | None, Parameter(help=_BUDGET)] = None
    batch: int | None = None
    seed: int | None = None
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = ()
    config: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """How a training runs on this machine.

    Parameters
    ----------
    precision:
        auto takes bfloat16 where the device is fast at it.
    compile:
        Use torch.compile; needs a C compiler and a minute at the start.
    license:
        Licence of the weights, written into the checkpoint.
    quiet:
        Print nothing but errors.
    """

    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Flag = False
    on_nan: Annotated[Literal["stop", "rollback"] | None, Parameter(help=_ON_NAN)] = None
    on_collapse: Annotated[Literal["stop", "rollback", "continue"], Parameter(help=_ON_COLLAPSE)] = "rollback"
    license: str = "unspecified"
    quiet: Flag = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Which images a GAN generates.

    Parameters
    ----------
    label:
        Class to generate, for a model that was trained with labels.
    truncation:
        From 1 to 0: less varied images, each closer to the mean.
    mix:
        A table of images, given in the same way, with every pair mixed.
    """

    label: str | None = None
    truncation: float = 1.0
    interpolate: Annotated[str | None, Parameter(help=_INTERPOLATE)] = None
    mix: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a prior samples codes.

    Parameters
    ----------
    prompt:
        What the image should show, for a prior that was trained with captions.
    temperature:
        For a prior, from 0: lower for likelier images. Default: 1.
    top_k:
        For a prior: sample each code from this many of the likeliest. Default: all.
    top_p:
        For a prior: sample each code from the likeliest that have this probability together. Default: 1.
    guidance:
        For a prior, from 1: higher to follow the label or the prompt more closely. Default: 1.
    steps:
        Sampling steps, for a prior that was trained with model.order=masked. Default: 10.
    """

    prompt: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance: float | None = None
    steps: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RateOptions:
    """How far pictures are compressed: one of the first four.

    Parameters
    ----------
    quality:
        1 to 100; 16 more halve the quantisation step. Default: 40.
    max_bytes:
        The best quality at which a file has at most so many bytes. Not for archives.
    bpp:
        The best quality at which a file has at most so many bits per pixel. Not for archives.
    target_psnr:
        The smallest file with at least so many dB. Not for archives.
    effort:
        Rounds of searching for better codes, from 0. Each takes about as long as three decodings. Default: 8, or 0
        for a VQ-VAE.
    exact:
        Also store the difference to the exact pixels. Not for archives.
    """

    quality: int | None = None
    max_bytes: int | None = None
    bpp: float | None = None
    target_psnr: float | None = None
    effort: int | None = None
    tune: Annotated[int, Parameter(help=_TUNE)] = 0
    exact: Flag = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """How an archive is written.

    Parameters
    ----------
    per_block:
        Images that are coded together: 16 for the smallest file, 1 for direct access to each. Default: 16.
    append:
        Add the images to an existing archive.
    """

    per_block: Literal[1, 16] | None = None
    append: Flag = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class VersionOptions:
    """What a prior makes of given images, and where it is written.

    Parameters
    ----------
    out:
        Folder for the versions, NAME.fill-0.png or NAME.vary-0.png and so on, and for a sheet of them, without number.
    count:
        How many versions.
    seed:
        Version i of a seed is the same however many are generated.
    label:
        Class the image is of, for a model that was trained with labels.
    resize:
        Bring images of another size to the model's: cover, contain or stretch. Default: refuse them.
    """

    out: OutPath
    count: int = 4
    seed: int = 0
    label: str | None = None
    resize: Resize | None = None
    device: Device = "cpu"
    overwrite: Overwrite = False
