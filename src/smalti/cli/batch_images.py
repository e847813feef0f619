"""Images named on a command line, and the names of what comes of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smalti.cli import console
from smalti.cli.outputs import free_to_write
from smalti.errors import ConfigError, DataError, OutputError

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """An image and the files that come of it."""

    image: Path
    outputs: tuple[Path, ...]


def plan(images: Sequence[Path], out: Path, overwrite: bool, suffixes: Sequence[str]) -> list[Job]:
    """A name for each image and suffix, all of them checked before the first image is read.

    A name that another image has taken gets a number: x.png, x-2.png.

    Raises:
        OutputError: a file is there already, or is one of the images themselves.
    """
    inputs = {identity: image for image in images if (identity := _identity(image)) is not None}
    taken: set[str] = set()
    jobs = []
    for image in images:
        name, number = image.stem, 2
        while taken & _outputs(name, suffixes):
            name, number = f"{image.stem}-{number}", number + 1
        taken |= _outputs(name, suffixes)
        job = Job(image, tuple(out / f"{name}{suffix}" for suffix in suffixes))
        for target in job.outputs:
            there = _identity(target)
            if there is not None and there in inputs:
                raise OutputError(f"{target} would replace {inputs[there]}, one of the images; give another --out")
            free_to_write(target, overwrite)
        jobs.append(job)
    return jobs


def process_images(
    images: Iterable[Path], out: Path, overwrite: bool, suffixes: Sequence[str], verb: str, work: Callable[[Job], T]
) -> tuple[list[T], int]:
    """Do the work for each image, and go on after one that is bad.

    Args:
        verb: what is done, for the message when nothing was: "reconstructed".

    Returns:
        What came of the good ones, and how many were bad and reported.

    Raises:
        ConfigError: `out` is a file, or no images were named.
        OutputError: a file is there already, or is one of the images themselves.
        DataError: all were bad.
    """
    if os.path.isfile(out):
        raise ConfigError(f"{out} is a file; give --out a folder")
    results, failed = list[T](), 0
    for job in plan(list(image_files(images)), out, overwrite, suffixes):
        try:
            results.append(work(job))
        except (DataError, ConfigError) as error:
            failed += 1
            console.complain(f"{job.image} was left out: {error.message}")
    if not results:
        raise DataError(f"no image could be {verb}; the lines above say why")
    return results, failed


def _outputs(name: str, suffixes: Sequence[str]) -> set[str]:
    """The files of a name, as a file system compares names that does not know capitals."""
    return {f"{name}{suffix}".casefold() for suffix in suffixes}


def _identity(path: Path) -> tuple[int, int] | None:
    """The file behind a name, whatever links lead there; None for a file that is not there or cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def image_files(places: Iterable[Path]) -> Iterator[Path]:
    """Each file named, and each image file in each folder named, in order.

    Raises:
        ConfigError: nothing was named.
    """
    from smalti.data.sources import IMAGE_EXTENSIONS

    places = tuple(places)
    if not places:
        raise ConfigError("no images were named; give image files or folders after the model")
    for place in places:
        if os.path.isdir(place):
            found = sorted(
                p for p in place.rglob("*") if p.suffix[1:].lower() in IMAGE_EXTENSIONS and os.path.isfile(p)
            )
            if not found:
                console.complain(f"{place} holds no image files")
            yield from found
        else:
            yield place
