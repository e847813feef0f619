"""`smalti decompress`: compressed files and archives back to pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.compress import ARCHIVE_EXTENSION, IMAGE_EXTENSION, targets_of
from smalti.cli.options import Device, OutPath, Overwrite
from smalti.cli.outputs import FreeNames, free_to_write
from smalti.cli.picture_jobs import Format
from smalti.cli.progress import counting
from smalti.errors import CodecError, ConfigError, DataError, SmaltiError

if TYPE_CHECKING:
    from smalti.codec.archive import ArchiveReader
    from smalti.data.pictures import Picture
    from smalti.pipelines.codec_models import CodecFinder
    from smalti.pipelines.picture_codec import PictureCodec

Decoder = Literal["faithful", "pleasing"]

_FILES = "Files of smalti compress, or folders of them."
_OUT = "A folder; or for one picture, a name ending in .png, .webp or .jpg."
_MODEL = (
    "The model that compressed them: a run folder, a checkpoint file or zoo:NAME. Default: the one of that digest, in "
    "the folder of each file or in the zoo."
)
_DECODER = "pleasing, if the model has it, looks better and is farther from the original."
_LIMIT = "Pixels of a picture, above which a file is refused before memory is taken."
_IMAGES = "Only these images of an archive, counted from 0: 0,5,7-9."


@dataclass(frozen=True)
class _Request:
    """What is wanted of every file."""

    finder: CodecFinder
    model: Path | None
    decoder: str
    out: Path
    format: str
    images: str | None
    pixel_limit: int
    overwrite: bool
    folders: tuple[Path, ...]  # that were named, in which models are looked for
    unknown: dict[str, int] = field(default_factory=dict)  # files of each model that was not found

    @property
    def one_picture(self) -> bool:
        """Whether `out` is a file."""
        return bool(self.out.suffix) and not self.out.is_dir()

    def codec(self, digest: bytes, path: Path) -> PictureCodec:
        """The codec of a file: the one that was given, or else the one of that digest."""
        if self.model is not None:
            codec = self.finder.open(self.model)
        else:
            codec = self.finder.find(digest, source=str(path), folders=[path.absolute().parent, *self.folders])
        codec.check_decoder(self.decoder)
        return codec


@app.command(
    help_epilogue=examples(
        "smalti decompress small/ --out pictures/",
        "smalti decompress cat.smi --out cat.png --decoder pleasing",
        "smalti decompress thumbnails.smt --images 0,5,7-9 --model runs/thumb --out some/",
    )
)
def decompress(
    files: Annotated[tuple[Path, ...], Parameter(negative=(), help=_FILES)],
    /,
    *,
    out: Annotated[OutPath, Parameter(help=_OUT)],
    model: Annotated[Path | None, Parameter(help=_MODEL)] = None,
    decoder: Annotated[Decoder, Parameter(help=_DECODER)] = "faithful",
    images: Annotated[str | None, Parameter(help=_IMAGES)] = None,
    format: Format = "png",
    pixel_limit: Annotated[int, Parameter(help=_LIMIT)] = 2**28 // 3,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Turn compressed files and archives back into pictures.

    Parameters
    ----------
    format:
        Format of the pictures in a folder; WebP is lossless.
    """
    from smalti.pipelines.codec_models import CodecFinder
    from smalti.report.picture_files import format_of

    folders = tuple(path for path in files if path.is_dir())
    finder = CodecFinder(device=device)
    request = _Request(finder, model, decoder, out, format, images, pixel_limit, overwrite, folders)
    if request.one_picture:
        format_of(out)
        free_to_write(out, overwrite)
    elif out.is_file():
        raise ConfigError(f"{out} is a file; give --out a folder, or a name ending in .png")
    if model is not None:
        request.finder.open(model)  # a mistake in it is one of the command, not of each file
    found = compressed_files(files)
    if request.one_picture and len(found) > 1:
        raise ConfigError(f"--out is {out}, but there are {len(found):,} files; give a folder")
    targets = _targets(request, found)
    written = failed = 0
    for (path, _), target in zip(found, targets, strict=True):
        try:
            done, bad = _decompress(request, path, target)
        except (CodecError, DataError) as error:
            if len(found) == 1:
                raise
            done, bad = 0, 1
            _complain(request, path, error)
        written, failed = written + done, failed + bad
    for digest, count in request.unknown.items():
        if count > 1:
            console.complain(f"{count - 1:,} more files of the model {digest} were left out")
    if not written:
        raise DataError("no picture could be decompressed; the lines above say why")
    console.note(f"{written:,} picture{'s' * (written > 1)}{f', {failed:,} left out' if failed else ''}: {out}")
    return 1 if failed else 0


def _complain(request: _Request, path: Path, error: SmaltiError) -> None:
    """Report a file that was left out; of those whose model is not at hand, only the first."""
    from smalti.pipelines.codec_models import UnknownModelError

    if isinstance(error, UnknownModelError):
        request.unknown[error.digest] = request.unknown.get(error.digest, 0) + 1
        if request.unknown[error.digest] > 1:
            return
    console.complain(f"{path} was left out: {error.message}")


def compressed_files(places: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file named, and each compressed file in each folder named: its path, and its name relative to that.

    Raises:
        ConfigError: nothing was named.
        DataError: a folder holds no compressed files.
    """
    if not places:
        raise ConfigError("no files were named; give files of smalti compress, or folders of them")
    found: list[tuple[Path, str]] = []
    for place in places:
        if not place.is_dir():
            found.append((place, place.name))
            continue
        inside = sorted(path for path in place.rglob("*") if path.suffix in (ARCHIVE_EXTENSION, IMAGE_EXTENSION))
        if not inside:
            raise DataError(f"{place} holds no {IMAGE_EXTENSION} and no {ARCHIVE_EXTENSION} files")
        found += [(path, path.relative_to(place).as_posix()) for path in inside]
    return found


def _targets(request: _Request, found: Sequence[tuple[Path, str]]) -> list[Path]:
    """The file of each single picture, and the folder of each archive's; all of them checked before one is written."""
    names, targets = FreeNames(), []
    for path, name in found:
        if len(found) == 1 and (request.one_picture or _is_archive(path)):
            targets.append(request.out)
        elif _is_archive(path):
            targets.append(request.out / names.take(name.removesuffix(ARCHIVE_EXTENSION)))
        else:
            (target,) = targets_of([name.removesuffix(IMAGE_EXTENSION)], request.out, f".{request.format}")
            targets.append(request.out / names.take(target.relative_to(request.out).as_posix()))
            free_to_write(targets[-1], request.overwrite)
    return targets


def _is_archive(path: Path) -> bool:
    """Whether a file is an archive; one that cannot be read is not, and reported later."""
    from smalti.codec.container import Form, form_of

    try:
        with path.open("rb") as file:
            return form_of(file.read(3)) == Form.ARCHIVE
    except (OSError, CodecError):
        return False


def _decompress(request: _Request, path: Path, target: Path) -> tuple[int, int]:
    """Write the pictures of a file; returns how many were written, and how many were not."""
    from smalti.codec.archive import ArchiveReader
    from smalti.codec.container import HEADER_LIMIT, Form, form_of, read_header
    from smalti.files import input_errors

    with input_errors(path, CodecError), path.open("rb") as file:
        start = file.read(HEADER_LIMIT)
    if form_of(start[:3], source=str(path)) == Form.ARCHIVE:
        with ArchiveReader(path) as reader:
            codec = request.codec(reader.header.digest, path)
        return _decompress_archive(request, codec, path, target)
    if request.images is not None:
        raise CodecError(f"{path} is one picture; leave --images out, which is for archives")
    limit = request.pixel_limit
    codec = request.codec(read_header(start, pixel_limit=limit, source=str(path)).digest, path)
    with input_errors(path, CodecError):
        data = path.read_bytes()
    _save(request, target, codec.read(data, decoder=request.decoder, pixel_limit=limit, source=str(path)))
    return 1, 0


def _decompress_archive(request: _Request, codec: PictureCodec, path: Path, folder: Path) -> tuple[int, int]:
    """Write the pictures of an archive."""
    with codec.open_archive(path, decoder=request.decoder, pixel_limit=request.pixel_limit) as archive:
        reader = archive.reader
        numbers = range(len(reader)) if request.images is None else parse_numbers(request.images, len(reader))
        targets = _archive_targets(request, reader, numbers, folder)
        for target in targets.values():
            free_to_write(target, request.overwrite)
        blocks = sorted({reader.block_of(number)[0] for number in numbers})
        left, total = dict(targets), len(targets)
        with counting("decompressing") as tell:
            for block, pictures in archive.blocks(blocks):
                for number, picture in zip(reader.images_of(block), pictures, strict=True):
                    if number in left:
                        with _reporting(f"image {number:,} of {path}"):
                            _save(request, left[number], picture)
                            del left[number]
                tell(total - len(left), total)
        for problem in reader.problems:
            console.complain(f"{path} is damaged in {problem}")
        for number in left:
            console.complain(f"image {number:,} of {path} was left out: it cannot be read")
        lost = 0 if reader.indexed else len(reader.problems)  # nobody knows how many images
    return total - len(left), len(left) + lost


def _archive_targets(request: _Request, reader: ArchiveReader, numbers: Sequence[int], folder: Path) -> dict[int, Path]:
    """The file of each image: its name; without one its number, in a folder of its class."""
    if request.one_picture:
        if len(numbers) != 1:
            raise ConfigError(
                f"--out is {request.out}, but the archive has {len(numbers):,} pictures; give a folder, or --images 0"
            )
        return {numbers[0]: request.out}
    names, labels, free = reader.names, reader.labels, FreeNames()
    targets = {}
    for number in numbers:
        name = names[number] if names is not None else ""
        label = -1 if labels is None or name else int(labels[number])
        inside = f"{reader.classes[label]}/" if 0 <= label < len(reader.classes) else ""
        plain = f"{number:05d}"
        wanted: list[Path] = []
        with _reporting(f"image {number:,} has a bad name and becomes {plain}"):
            wanted = targets_of([name or inside + plain], folder, f".{request.format}")
        target = wanted[0] if wanted else folder / f"{plain}.{request.format}"
        targets[number] = folder / free.take(target.relative_to(folder).as_posix())
    return targets


@contextlib.contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Report an error about one image, and go on."""
    try:
        yield
    except (CodecError, DataError) as error:
        console.complain(f"{what}: {error.message}")


def _save(request: _Request, target: Path, picture: Picture) -> None:
    from smalti.report.picture_files import format_of, save_picture

    free_to_write(target, request.overwrite)
    save_picture(target, picture, format=format_of(target))


def parse_numbers(text: str, count: int) -> list[int]:
    """Numbers of images as they are typed: "0,5,7-9".

    Raises:
        ConfigError: they are no numbers, or there are no such images.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--images is {text!r}, expected numbers and ranges such as 0,5,7-9")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high < count:
            raise ConfigError(f"--images has {part.strip()}, but the archive has images 0 to {count - 1}")
        numbers += range(low, high + 1)
    return sorted(set(numbers))
