"""`smalti degrade`: pictures with noise, blur, compression or holes, to test what restores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import OutPath, Overwrite
from smalti.cli.outputs import FreeNames, free_to_write
from smalti.cli.picture_jobs import (
    Format,
    Pictures,
    counted,
    for_each_picture,
    names_a_picture,
    one_target,
    read_contents,
    refuse_inputs,
    stem_of,
)
from smalti.cli.progress import counting
from smalti.errors import ConfigError, DataError

if TYPE_CHECKING:
    from smalti.config.degradation import Degradation
    from smalti.data.picture_list import Contents

_DEGRADATION = "Steps in order: 'blur(1) noise(5..20) jpeg(40)'; or light, web, old-photo or second-order."
_OUT = "Folder for the pictures, in the same tree of folders, or a file for one; of holes also NAME.mask.png."


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
    images: Pictures,
    /,
    *,
    out: Annotated[OutPath, Parameter(help=_OUT)],
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
    from smalti.report.picture_files import format_of

    steps = parse_degradation(degradation)
    one = names_a_picture(out)
    written_as = format_of(out) if one else format
    with counting("looking") as tell:
        pictures = list_pictures(images, progress=tell)
    targets = _targets(pictures.names, out, written_as, one=one, holes=steps.has_hole)
    paths = [path for target in targets for path in target.paths]
    for path in paths:
        free_to_write(path, overwrite)
    refuse_inputs(paths, images)

    def work(number: int, contents: Contents) -> None:
        applied = _degrade(contents, steps, targets[number], written_as, seed=seed, number=number)
        console.say(f"{pictures.names[number]}  {applied}")

    failed = for_each_picture(pictures, "degrading", work, (DataError, ConfigError))
    if failed == len(pictures):
        raise DataError("no picture could be degraded; the lines above say why")
    left_out = f", {failed:,} left out" if failed else ""
    console.note(f"{counted(len(pictures) - failed)}{left_out}, by {steps}, seed {seed}: {out}")
    return 1 if failed else 0


def _degrade(
    contents: Contents, steps: Degradation, target: _Target, format: str, *, seed: int, number: int
) -> Degradation:
    """Write one picture, with its metadata, and its holes; returns what was applied."""
    import numpy as np

    from smalti.data.degrade import degrade
    from smalti.data.pictures import Picture
    from smalti.report.picture_files import save_picture

    picture = read_contents(contents)
    found = degrade(picture.pixels, steps, seed=seed, number=number)
    save_picture(target.picture, replace(picture, pixels=found.image), format=format)
    if target.mask is not None and found.hole is not None:
        save_picture(target.mask, Picture(np.where(found.hole, 255, 0).astype(np.uint8)[..., None]))
    return found.applied


def _targets(names: Sequence[str], out: Path, format: str, *, one: bool, holes: bool) -> list[_Target]:
    """The files of each picture: its name, with a number if another picture has that name."""
    if one:
        (picture,) = one_target(out, len(names))
        return [_Target(picture, out.with_suffix(".mask.png") if holes else None)]
    plain, free, targets = FreeNames(), FreeNames(), []
    for name in names:
        stem = plain.take(str(stem_of(name)))
        # A picture x.mask.png and the hole of x.png would have one name.
        picture = out / free.take(f"{stem}.{format}")
        mask = out / free.take(f"{stem}.mask.png") if holes else None
        targets.append(_Target(picture, mask))
    return targets
