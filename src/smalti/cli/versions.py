"""What `smalti fill` and `smalti vary` have in common: versions of images, from a trained prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.cli import console
from smalti.cli.batch_images import Job, process_images
from smalti.cli.options import SamplingOptions, VersionOptions
from smalti.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from smalti.pipelines.prior import Prior

VERSION_LIMIT = 1_000
SMALL_SIDE = 64  # pixels; sheets of pictures up to this size are enlarged


@dataclass(frozen=True)
class Request:
    """What a command line asks for, checked before any image is read.

    Attributes:
        prior: the model.
        versions: how many, and where they are written.
        arguments: of the prior's `fill` or `vary`.
        words: for the metadata of the pictures.
    """

    prior: Prior
    versions: VersionOptions
    arguments: dict[str, Any]
    words: dict[str, Any]


def open_request(model: Path, versions: VersionOptions, sampling: SamplingOptions) -> Request:
    """Open the prior and check that it can sample like this.

    Raises:
        CheckpointError: the model is no prior, or cannot be read.
        ConfigError: a number out of range, or a label or prompt that the prior does not know.
    """
    from smalti.cli.generators import sampling_arguments
    from smalti.pipelines.base import load_as
    from smalti.pipelines.prior import Prior

    if not 1 <= versions.count <= VERSION_LIMIT:
        raise ConfigError(f"--count is {versions.count}, but must be from 1 to {VERSION_LIMIT}")
    prior = load_as(model, Prior, device=versions.device)
    arguments, words = sampling_arguments(versions.label, sampling)
    prior.check_resampling(**arguments, seed=versions.seed)
    arguments = {"count": versions.count, "seed": versions.seed, **arguments}
    return Request(prior, versions, arguments, {"seed": versions.seed, **words})


def write_versions(
    request: Request,
    images: Sequence[Path],
    verb: str,
    draw: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    **words: object,
) -> int:
    """Write the versions of each image, in a file each and all on one sheet; a bad image is reported.

    Args:
        verb: "fill" or "vary", for the names of the files.
        draw: gives for an image what stands first on its sheet, and its versions.
        words: for the metadata of the pictures, before those of the request.

    Returns:
        The exit code: 1 when an image was bad.
    """
    from smalti.pipelines.limits import check_pixels

    versions = request.versions
    advice = "fewer at once, with another --seed each time"
    check_pixels(request.prior.card.image.shape, versions.count + 1, advice)
    suffixes = [f".{verb}.png", *(f".{verb}-{number}.png" for number in range(versions.count))]

    def work(job: Job) -> Path:
        first, drawn = draw(_read(request, job.image))
        text = request.prior.provenance(source=job.image.name, **words, **request.words)
        return _write(job, first, drawn, text)

    done, failed = process_images(images, versions.out, versions.overwrite, suffixes, "read", work)
    console.note(f"{versions.count} versions of {len(done)} images: {done[0]}{' ...' if len(done) > 1 else ''}")
    return 1 if failed else 0


def _read(request: Request, image: Path) -> np.ndarray:
    """An image as (H, W, C) uint8, of the model's size; ConfigError if it has another and may not be resized."""
    from smalti.data import images as decoding

    channels, height, width = request.prior.card.image.shape
    resize = request.versions.resize
    size = None if resize is None else (height, width)
    picture = decoding.decode(image, channels=channels, size=size, resize=resize or "cover")
    if picture.shape != (height, width, channels):
        raise ConfigError(
            f"it is {picture.shape[0]}x{picture.shape[1]}, and the model makes {height}x{width}; "
            "give --resize cover, contain or stretch"
        )
    return picture


def _write(job: Job, first: np.ndarray, drawn: np.ndarray, text: dict[str, str]) -> Path:
    """Write versions and the sheet of them, and return the sheet's place."""
    import numpy as np

    from smalti.report.pictures import grid, write_png

    sheet, *files = job.outputs
    for file, version in zip(files, drawn, strict=True):
        write_png(file, version, text)
    scale = 2 if max(first.shape[:2]) <= SMALL_SIDE else 1
    write_png(sheet, grid(np.concatenate([first[None], drawn]), scale=scale), text)
    return sheet
