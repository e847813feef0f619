"""`smalti degrade`: pictures with noise, blur, compression or holes, to test what restores them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Overwrite
from smalti.cli.outputs import FreeNames, free_to_write
from smalti.cli.progress import counting
from smalti.errors import ConfigError, DataError, OutputError

if TYPE_CHECKING:
    from smalti.config.degradation import Degradation
    from smalti.data.picture_list import Contents

Format = Literal["png", "webp", "jpeg"]

_DEGRADATION = "Steps in order: 'blur(1) noise(5..20) jpeg(40)'; or light, web, old-photo or second-order."
_IMAGES = "Image files, folders of them (to any depth), or data sources: archives, cifar10, emoji."
_OUT = "Folder for the pictures, in the same tree of folders; of a picture with holes also NAME.mask.png, white there."


@dataclass(frozen=True)
class _Target:
    """The files of one picture; `mask` is None if the degradation cuts no holes."""

    picture: Path
    mask: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.picture,) if self.mask is None else (self.picture, self.mask)


@app.command(
    help_epilogue=examples(
        "smalti degrade 'noise(25)' holiday/ --out noisy/",
        "smalti degrade 'down(4) jpeg(30..90)' cat.jpg --out small/ --seed 1",
        "smalti degrade second-order photos/ --out bad/ --format jpeg",
    )
)
def degrade(
    degradation: Annotated[str, Parameter(help=_DEGRADATION)],
    images: Annotated[tuple[str, ...], Parameter(negative=(), help=_IMAGES)],
    /,
    *,
    out: Annotated[Path, Parameter(help=_OUT)],
    seed: int = 0,
    format: Format = "png",
    overwrite: Overwrite = False,
) -> int:
    """Degrade pictures in a way that is described in words, and print what was done to each.

    Parameters
    ----------
    seed:
        Of all random numbers; a picture gets those of its place in the list.
    format:
        Format of the pictures. WebP is lossless; JPEG has quality 95 on top of what the steps do.
    """
    from smalti.config.degradation import parse_degradation
    from smalti.data.picture_list import list_pictures

    steps = parse_degradation(degradation)
    if out.is_file():
        raise ConfigError(f"{out} is a file; give --out a folder")
    with counting("looking") as tell:
        pictures = list_pictures(images, progress=tell)
    targets = _targets(pictures.names, out, format, holes=steps.has_hole)
    _check_targets(targets, images, overwrite)
    written = failed = 0
    with counting("degrading") as tell:
        for done, (number, contents) in enumerate(pictures, 1):
            name = pictures.names[number]
            try:
                applied = _degrade(contents, steps, targets[number], format, seed=seed, number=number)
                console.say(f"{name}  {applied}")
                written += 1
            except (DataError, ConfigError) as error:
                if len(pictures) == 1:
                    raise type(error)(f"{name}: {error.message}") from None
                failed += 1
                console.complain(f"{name} was left out: {error.message}")
            tell(done, len(pictures))
    if not written:
        raise DataError("no picture could be degraded; the lines above say why")
    left_out = f", {failed:,} left out" if failed else ""
    console.note(f"{written:,} picture{'s' * (written > 1)}{left_out}, by {steps}, seed {seed}: {out}")
    return 1 if failed else 0


def _degrade(
    contents: Contents, steps: Degradation, target: _Target, format: str, *, seed: int, number: int
) -> Degradation:
    """Write one picture, with its metadata, and its holes; returns what was applied."""
    import numpy as np

    from smalti.data.archives import bytes_of
    from smalti.data.degrade import degrade
    from smalti.data.pictures import Picture, read_picture
    from smalti.report.picture_files import save_picture

    if isinstance(contents, DataError):
        raise contents
    picture = read_picture(bytes_of(contents) if isinstance(contents, Path) else contents)
    found = degrade(picture.pixels, steps, seed=seed, number=number)
    save_picture(target.picture, Picture(found.image, picture.icc, picture.exif, picture.xmp), format=format)
    if target.mask is not None and found.hole is not None:
        save_picture(target.mask, Picture(np.where(found.hole, 255, 0).astype(np.uint8)[..., None]))
    return found.applied


def _targets(names: Sequence[str], out: Path, format: str, *, holes: bool) -> list[_Target]:
    """The files of each picture: its name, with a number if another picture has that name."""
    from smalti.codec.archive import safe_name
    from smalti.data.sources import IMAGE_EXTENSIONS

    plain, free, targets = FreeNames(), FreeNames(), []
    for name in names:
        path = PurePosixPath(safe_name(name))
        known = path.suffix[1:].lower() in IMAGE_EXTENSIONS
        stem = plain.take(str(path.with_suffix("") if known else path))
        # A picture x.mask.png and the hole of x.png would have one name.
        picture = out / free.take(f"{stem}.{format}")
        mask = out / free.take(f"{stem}.mask.png") if holes else None
        targets.append(_Target(picture, mask))
    return targets


def _check_targets(targets: Sequence[_Target], images: Sequence[str], overwrite: bool) -> None:
    """Refuse to replace files, and one of the pictures themselves whatever `overwrite` says.

    Raises:
        OutputError: a file is there already, or is one of the pictures.
    """
    from smalti.data.opening import expanded

    paths = [path for target in targets for path in target.paths]
    for path in paths:
        free_to_write(path, overwrite)
    if not overwrite:
        return
    inputs = {identity for place in map(expanded, images) for identity in _identities(place)}
    for path in paths:
        if inputs & set(_identities(path)):
            raise OutputError(f"{path} is one of the pictures itself; give another --out")


def _identities(place: Path) -> list[tuple[int, int]]:
    """The files at a path, or in a folder, whatever links lead there."""
    found = []
    with contextlib.suppress(OSError):
        for path in place.rglob("*") if place.is_dir() else [place]:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.append((status.st_dev, status.st_ino))
    return found
