"""`smalti restore`: pictures through one or several trained restorers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.before_after import BeforeAfter
from smalti.cli.options import Device, Flag, OutPath, Overwrite
from smalti.cli.outputs import FreeNames
from smalti.cli.picture_jobs import (
    Format,
    Pictures,
    counted,
    for_each_picture,
    names_a_picture,
    one_target,
    read_contents,
    read_frames,
    refuse_inputs,
    stem_of,
)
from smalti.cli.progress import counting
from smalti.errors import ConfigError, DataError, OutputError
from smalti.files import remove_leftovers

if TYPE_CHECKING:
    from smalti.data.picture_list import Contents
    from smalti.data.pictures import Picture
    from smalti.pipelines.restorer import Restorer

_MODELS = (
    "A run folder, a checkpoint file, zoo:NAME, or by spandrel an ESRGAN, SPAN, NAFNet, DRUNet, ... as FILE.pth or "
    "FILE.safetensors; several, separated by commas, are applied in this order."
)
OUT_HELP = (
    "Folder for the pictures, with the names and in the tree of folders that they have; or a file for one picture."
)
_HOLES = "For a model that fills holes: a mask, white where pixels are missing; or a folder of NAME.mask.png."
_FIDELITY = "For a model of the preset restore-codes, from 0, made of codes alone, to 1, nearest to the picture."


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How models are applied to pictures, and what is written.

    Parameters
    ----------
    format:
        Format of the pictures. Default: their own, and png for those that are neither PNG, WebP nor JPEG.
    strength:
        From 0, the picture as it was, to 1; up to 2 exaggerates.
    self_ensemble:
        Mean over the eight turned and mirrored pictures: slightly better, eight times as long.
    tile:
        Side in pixels of the tiles in which pictures are restored. It changes memory and time, and the result only with
        models of restore-codes whose VQ-VAE normalises over the picture, and with networks of other projects.
    pixel_limit:
        Pixels of a picture, or of all frames of an animation, above which a file is refused.
    compare:
        An HTML page to write: the pictures before and after.
    reference:
        For the page: the wanted picture, or a folder of them by the same names, to give PSNR and SSIM.
    """

    format: Format | None = None
    strength: float = 1.0
    self_ensemble: Flag = False
    tile: int | None = None
    pixel_limit: int = 2**27  # pictures of a hundred megapixels are taken
    compare: Path | None = None
    reference: Path | None = None
    device: Device = "cpu"
    overwrite: Overwrite = False


DEFAULTS = PictureOptions()


@dataclass(frozen=True)
class _Request:
    """What is wanted of every picture."""

    models: Sequence[Restorer]
    options: PictureOptions
    holes: Path | None
    fidelity: float | None


@app.command(
    help_epilogue=examples(
        "smalti restore runs/denoise holiday/ --out clean/",
        "smalti restore runs/jpeg-repair,runs/super-x2 cat.jpg --out large/ --format png",
        "smalti restore runs/fill photos/ --holes masks/ --out filled/",
    )
)
def restore(
    models: Annotated[str, Parameter(help=_MODELS)],
    images: Pictures,
    /,
    *,
    out: Annotated[OutPath, Parameter(help=OUT_HELP)],
    holes: Annotated[Path | None, Parameter(help=_HOLES)] = None,
    fidelity: Annotated[float | None, Parameter(help=_FIDELITY)] = None,
    options: PictureOptions = DEFAULTS,
) -> int:
    """Restore pictures with models of a preset such as denoise or super-x2.

    Pictures that are in the output folder already are left as they are, so an interrupted job goes on with the same
    command. Colour profile, EXIF, XMP and resolution are kept; animations are restored frame by frame.
    """
    return apply_models(
        lambda: open_restorers(models, options.device), images, out, options, holes=holes, fidelity=fidelity
    )


def apply_models(
    opened: Callable[[], Sequence[Restorer]],
    images: tuple[str, ...],
    out: Path,
    options: PictureOptions,
    *,
    holes: Path | None = None,
    fidelity: float | None = None,
    words: tuple[str, str] = ("restoring", "restored"),
) -> int:
    """Apply models to pictures, one after the other; returns the exit code.

    Args:
        opened: opens the models, after the places have been checked.
        words: for what is done, and for what has been done.

    Raises:
        SmaltiError: there are no pictures, or none could be restored, or an option does not fit.
    """
    from smalti.data.picture_list import list_pictures

    doing, ended = words
    one = names_a_picture(out)
    if not one:
        _refuse_inside(images, out)
    page = _page(options)
    chain = opened()
    _check_holes(chain, holes)
    if fidelity is not None and not any(model.has_fidelity for model in chain):
        raise ConfigError("none of the models has a fidelity, which models of restore-codes have; leave --fidelity out")
    request = _Request(chain, options, holes, fidelity)
    with counting("looking") as tell:
        pictures = list_pictures(images, progress=tell)
    targets = one_target(out, len(pictures)) if one else _targets(pictures.names, out, options.format)
    refuse_inputs(targets, images)
    remove_leftovers(targets)
    skipped = 0

    def work(number: int, contents: Contents) -> None:
        nonlocal skipped
        there = targets[number].exists() and not options.overwrite
        skipped += there
        if there and page is None:
            return
        name, target = pictures.names[number], targets[number]
        before, after = (_there if there else _restore)(request, contents, name, target)
        if page is not None:
            page.add(name, before, after)

    failed = for_each_picture(pictures, doing, work)
    if failed == len(pictures):
        raise DataError(f"no picture could be {ended}; the lines above say why")
    if page is not None:
        page.write(chain, options.strength)
    parts = [f"{counted(len(pictures) - failed - skipped)} {ended}"]
    parts += [f"{skipped:,} there already (--overwrite does them again)"] * bool(skipped)
    parts += [f"{failed:,} left out"] * bool(failed)
    console.note(f"{', '.join(parts)}: {out}")
    return 1 if failed else 0


def open_restorers(models: str, device: str) -> list[Restorer]:
    """The restorers of a list separated by commas.

    Raises:
        CheckpointError: there is no such model, or it is of another kind.
        ConfigError: a name is missing.
    """
    from smalti.pipelines.base import load_as
    from smalti.pipelines.restorer import Restorer
    from smalti.pipelines.spandrel_models import is_foreign, load_foreign

    names = [models] if Path(models).exists() else [name.strip() for name in models.split(",")]
    if not all(names):
        raise ConfigError(f"{models!r} has an empty name; write models as runs/jpeg-repair,runs/super-x2")
    return [
        load_foreign(Path(name), device=device) if is_foreign(Path(name)) else load_as(name, Restorer, device=device)
        for name in names
    ]


def _refuse_inside(images: Iterable[str], out: Path) -> None:
    """Refuse to write into a folder that is read: the next call would take what this one wrote."""
    from smalti.data.opening import WORDS, expanded

    for place in images:
        folder = expanded(place)
        if place not in WORDS and folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} is in the pictures' own folder {folder}; give --out a folder outside of it")


def _check_holes(chain: Sequence[Restorer], holes: Path | None) -> None:
    filling = [model for model in chain if model.needs_hole]
    if filling and holes is None:
        raise ConfigError(f"{filling[0].path} fills holes; give --holes, a mask or a folder of NAME.mask.png")
    if holes is not None and not filling:
        raise ConfigError("none of the models fills holes; leave --holes out")
    if holes is not None and not holes.exists():
        raise DataError(f"there is no {holes}; give --holes a mask or a folder of NAME.mask.png")
    if filling and filling[0] is not chain[0]:
        raise ConfigError("the model that fills holes must come first, because masks have the size of the pictures")


def _targets(names: Sequence[str], out: Path, format: str | None) -> list[Path]:
    """The file of each picture, in its own format where that can be written."""
    from smalti.report.picture_files import EXTENSIONS

    free, targets = FreeNames(), []
    for name in names:
        own = PurePosixPath(name).suffix[1:].lower()
        targets.append(out / free.take(f"{stem_of(name)}.{format or (own if own in EXTENSIONS else 'png')}"))
    return targets


def _page(options: PictureOptions) -> BeforeAfter | None:
    if options.compare is None:
        if options.reference is not None:
            raise ConfigError("--reference is for the page; give --compare a name that ends in .html")
        return None
    return BeforeAfter(options.compare, options.reference, pixel_limit=options.pixel_limit, overwrite=options.overwrite)


def _restore(request: _Request, contents: Contents, name: str, target: Path) -> tuple[Picture, Picture]:
    """Restore one picture, or all frames of an animation, and write it; gives the (first) one before and after."""
    from smalti.report.picture_files import format_of, save_animation, save_picture

    animation = read_frames(contents, pixel_limit=request.options.pixel_limit)
    if animation is not None:
        restored = animation.each(lambda frame: _restored(request, name, frame))
        save_animation(target, restored, format=format_of(target))
        return animation.frames[0], restored.frames[0]
    before = read_contents(contents, pixel_limit=request.options.pixel_limit)
    after = _restored(request, name, before)
    save_picture(target, after, format=format_of(target))
    return before, after


def _there(request: _Request, contents: Contents, name: str, target: Path) -> tuple[Picture, Picture]:
    """A picture and what an earlier call made of it."""
    from smalti.data.pictures import read_picture

    before = read_contents(contents, pixel_limit=request.options.pixel_limit)
    return before, read_picture(
        target, metadata=False, pixel_limit=max(request.options.pixel_limit, 64 * before.pixels.size)
    )


def _restored(request: _Request, name: str, picture: Picture) -> Picture:
    options = request.options
    for model in request.models:
        hole = _hole(request, name, picture) if model.needs_hole else None
        picture = model.restore(
            picture, hole=hole, strength=options.strength, self_ensemble=options.self_ensemble, tile=options.tile,
            fidelity=request.fidelity if model.has_fidelity else None,
        )  # fmt: skip
    return picture


def _hole(request: _Request, name: str, picture: Picture) -> Picture:
    """The mask of a picture.

    Raises:
        DataError: there is none, or it has another size.
    """
    from smalti.data.pictures import read_picture

    assert request.holes is not None
    path = request.holes
    if path.is_dir():
        stem = PurePosixPath(name).with_suffix("")
        path = next(
            (p for p in (path / f"{stem}.mask.png", path / f"{stem}.png") if p.exists()), path / f"{stem}.mask.png"
        )
        if not path.exists():
            raise DataError(f"there is no mask {path} for it")
    mask = read_picture(path, metadata=False, pixel_limit=request.options.pixel_limit)
    if mask.pixels.shape[:2] != picture.pixels.shape[:2]:
        raise DataError(
            f"its mask {path} has {mask.pixels.shape[0]}x{mask.pixels.shape[1]} pixels, the picture "
            f"{picture.pixels.shape[0]}x{picture.pixels.shape[1]}"
        )
    return mask
