"""Pictures from anywhere to picture files: the names of the files, and the work one by one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.progress import counting
from smalti.errors import ConfigError, DataError, OutputError, SmaltiError

if TYPE_CHECKING:
    from smalti.data.animations import Animation
    from smalti.data.picture_list import Contents, PictureList
    from smalti.data.pictures import Picture

Format = Literal["png", "webp", "jpeg"]
Pictures = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(), help="Image files, folders of them (to any depth), or data sources: archives, cifar10, emoji."
    ),
]


def stem_of(name: str) -> PurePosixPath:
    """A picture's name without the extension of an image file.

    Raises:
        CodecError: the name leads out of its folder.
    """
    from smalti.codec.archive import safe_name
    from smalti.data.sources import IMAGE_EXTENSIONS

    path = PurePosixPath(safe_name(name))
    return path.with_suffix("") if path.suffix[1:].lower() in IMAGE_EXTENSIONS else path


def names_a_picture(out: Path) -> bool:
    """Whether an output is the name of a picture file, and not that of a folder.

    Raises:
        ConfigError: a file is there that is no picture file.
    """
    from smalti.report.picture_files import EXTENSIONS

    if out.suffix[1:].lower() in EXTENSIONS and not out.is_dir():
        return True
    if out.is_file():
        raise ConfigError(f"{out} is a file; give --out a folder, or a name ending in .png")
    return False


def one_target(out: Path, count: int) -> list[Path]:
    """The file of the only picture.

    Raises:
        ConfigError: there are more.
    """
    if count != 1:
        raise ConfigError(f"--out is {out}, but there are {count:,} pictures; give a folder")
    return [out]


def refuse_inputs(targets: Iterable[Path], images: Iterable[str]) -> None:
    """Refuse to replace the pictures themselves.

    Raises:
        OutputError: a target is one of them, whatever links lead there.
    """
    from smalti.data.opening import expanded

    inputs = {identity for place in map(expanded, images) for identity in _identities(place)}
    for path in targets:
        if inputs & set(_identities(path)):
            raise OutputError(f"{path} is one of the pictures itself; give another --out")


def _identities(place: Path) -> list[tuple[int, int]]:
    """The files at a path, or in a folder."""
    found = []
    with contextlib.suppress(OSError):
        for path in place.rglob("*") if place.is_dir() else [place]:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.append((status.st_dev, status.st_ino))
    return found


def read_contents(contents: Contents, *, pixel_limit: int | None = None) -> Picture:
    """The picture of an item of a `PictureList`.

    Raises:
        DataError: it cannot be read.
    """
    from smalti.data.archives import bytes_of
    from smalti.data.deep import NEEDS
    from smalti.data.image_files import PIXEL_LIMIT
    from smalti.data.pictures import read_picture

    if isinstance(contents, DataError):
        raise contents
    data = bytes_of(contents) if isinstance(contents, Path) else contents
    picture = read_picture(data, pixel_limit=pixel_limit or PIXEL_LIMIT)
    if picture.rounded:
        console.note_once(f"16-bit colours are read with 8 bits; {NEEDS}")
    return picture


def read_frames(contents: Contents, *, pixel_limit: int | None = None) -> Animation | None:
    """The same if it is animated, else None.

    Raises:
        DataError: it cannot be read.
    """
    from smalti.data.animations import read_animation
    from smalti.data.archives import bytes_of
    from smalti.data.image_files import PIXEL_LIMIT

    if not isinstance(contents, bytes | Path):
        return None
    return read_animation(bytes_of(contents), pixel_limit=pixel_limit or PIXEL_LIMIT)


def for_each_picture(
    pictures: PictureList,
    doing: str,
    work: Callable[[int, Contents], None],
    errors: tuple[type[SmaltiError], ...] = (DataError,),
) -> int:
    """Do the work for each picture, given its number and contents; returns how many were left out.

    Args:
        doing: the word for the progress bar and for an interruption, such as "restoring".
        errors: that are about one picture: it is reported, and the rest goes on.

    Raises:
        SmaltiError: one of `errors`, if there is only this picture; any other.
    """
    failed = done = 0
    try:
        with counting(doing) as tell:
            for done, (number, contents) in enumerate(pictures, 1):
                try:
                    work(number, contents)
                except errors as error:
                    name = pictures.names[number]
                    if len(pictures) == 1:
                        raise type(error)(f"{name}: {error.message}") from None
                    failed += 1
                    console.complain(f"{name} was left out: {error.message}")
                tell(done, len(pictures))
    except KeyboardInterrupt:
        console.note(f"stopped {doing} after {max(done - 1, 0):,} of {len(pictures):,} pictures")
        raise
    return failed


def counted(number: int) -> str:
    """1 picture, 2 pictures."""
    return f"{number:,} picture{'s' * (number != 1)}"
