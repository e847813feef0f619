"""`smalti compress`: pictures to small files, or to one archive."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import ArchiveOptions, Device, ModelPath, OutPath, Overwrite, RateOptions
from smalti.cli.outputs import FreeNames, free_to_write
from smalti.cli.picture_jobs import Pictures, stem_of
from smalti.cli.progress import counting
from smalti.errors import CheckpointError, CodecError, ConfigError, DataError, OutputError, SmaltiError

if TYPE_CHECKING:
    from smalti.codec.image_archive import ImageArchiveWriter
    from smalti.data.picture_list import Contents, PictureList
    from smalti.data.pictures import Picture
    from smalti.pipelines.picture_codec import PictureCodec

RATE, ARCHIVE = RateOptions(), ArchiveOptions()
ARCHIVE_EXTENSION, IMAGE_EXTENSION = ".smt", ".smi"
SAMPLE, SAMPLE_PIXELS = 64, 2**22  # images of an archive, and their pixels, whose error is measured

_OUT = "NAME.smt for one archive, NAME.smi for one picture, or a folder for a .smi file of each picture."


@app.command(
    help_epilogue=examples(
        "smalti compress runs/photo holiday/ --bpp 0.3 --out small/",
        "smalti compress runs/thumb thumbnails/ --quality 40 --out thumbnails.smt",
        "smalti compress runs/thumb new.zip --append --out thumbnails.smt",
    )
)
def compress(
    model: ModelPath,
    images: Pictures,
    /,
    *,
    out: Annotated[OutPath, Parameter(help=_OUT)],
    rate: RateOptions = RATE,
    archive: ArchiveOptions = ARCHIVE,
    split: str | None = None,
    metadata: Annotated[bool, Parameter(help="Keep colour profile, EXIF and XMP.")] = True,
    device: Device = "cpu",
    cache: Path | None = None,
    overwrite: Overwrite = False,
) -> int:
    """Compress pictures with a model of a codec preset, or with a VQ-VAE and its context net.

    Parameters
    ----------
    split:
        Compress only this split.
    cache:
        Folder in which downloads are looked for.
    """
    from smalti.data.picture_list import list_pictures
    from smalti.pipelines.picture_codec import Settings

    one_file = out.suffix.lower() in (ARCHIVE_EXTENSION, IMAGE_EXTENSION)
    to_archive = out.suffix.lower() == ARCHIVE_EXTENSION
    _check_options(out, rate, archive, to_archive=to_archive, overwrite=overwrite)
    if one_file:
        free_to_write(out, overwrite or archive.append)
    _check_inputs(images, out)
    codec = open_codec(model, device)
    codec.checked(Settings(**dataclasses.asdict(rate)))
    with counting("looking") as tell:
        pictures = list_pictures(images, split=split, cache=cache, progress=tell)
    totals = Totals(single=len(pictures) == 1, metadata=metadata)
    if to_archive:
        _to_archive(codec, pictures, out, rate, archive, totals, overwrite=overwrite)
    else:
        targets = [out] if one_file else targets_of(pictures.names, out, IMAGE_EXTENSION)
        if len(targets) != len(pictures):
            raise ConfigError(f"--out is {out}, but there are {len(pictures):,} pictures; give a folder, or NAME.smt")
        _to_files(codec, pictures, targets, rate, totals, overwrite=overwrite)
    console.facts(totals.facts() | {"out": str(out)})
    _say_which_model(codec)
    return 1 if totals.failed else 0


def open_codec(model: Path, device: str) -> PictureCodec:
    """The codec at a path.

    Raises:
        CheckpointError: the model is of another kind.
    """
    from smalti.checkpoint.file import read_card
    from smalti.checkpoint.find import find_checkpoint
    from smalti.pipelines.base import load
    from smalti.pipelines.picture_codec import picture_codec

    if read_card(find_checkpoint(model)).kind == "vqvae":
        raise CheckpointError(
            f"{model} is a vqvae, whose codes do not become a file of pictures without a context net; smalti train "
            f"context --of {model} trains one, and the run that it writes compresses pictures"
        )
    return picture_codec(load(model, device=device))


def targets_of(names: Sequence[str], folder: Path, extension: str) -> list[Path]:
    """A file in a folder for each name, with the name's folders; image extensions of the names are replaced.

    Raises:
        CodecError: a name leads out of the folder.
    """
    free = FreeNames()
    return [folder / free.take(f"{stem_of(name)}{extension}") for name in names]


@dataclass
class Totals:
    """What has been compressed.

    Attributes:
        single: whether there is only one picture, whose error is that of the command.
        metadata: whether metadata are read.
    """

    single: bool
    metadata: bool
    files: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    arrays: int = 0
    pixels: int = 0
    error: float = 0.0
    values: int = 0
    measured: int = 0
    exact: bool = False
    _size: int = field(default=0, repr=False)

    @contextlib.contextmanager
    def going_on(self, name: str, *errors: type[SmaltiError]) -> Iterator[None]:
        """Report a bad picture, and go on after it."""
        try:
            yield
        except SmaltiError as error:
            if not isinstance(error, (DataError, ConfigError, *errors)):
                raise
            if self.single:
                raise type(error)(f"{name}: {error.message}") from None
            self.failed += 1
            console.complain(f"{name} was left out: {error.message}")

    def read(self, contents: Contents) -> Picture:
        """Read a picture; `DataError` if it is bad."""
        from smalti.data.archives import bytes_of
        from smalti.data.pictures import read_picture

        if isinstance(contents, DataError):
            raise contents
        data = bytes_of(contents) if isinstance(contents, Path) else contents
        self._size = len(data) if isinstance(data, bytes) else 0
        return read_picture(data, metadata=self.metadata)

    def count(self, picture: Picture) -> None:
        """Count the picture that was read last, which has been compressed."""
        self.files += 1
        self.pixels += picture.pixels.shape[0] * picture.pixels.shape[1]
        self.bytes_in += self._size
        self.arrays += not self._size

    def measure(self, found: Picture, wanted: Picture) -> None:
        """Add the error of a picture."""
        from smalti.codec.image_codec import squared_error

        self.error += squared_error(found.pixels, wanted.pixels) * wanted.pixels.size
        self.values += wanted.pixels.size
        self.measured += 1

    def facts(self) -> dict[str, str]:
        """Names and figures for the end."""
        from smalti.metrics.distortion import psnr_db

        if not self.files:
            raise DataError("no image could be compressed; the lines above say why")
        share = f" ({100 * self.bytes_out / self.bytes_in:.2g} %)" if self.bytes_in and not self.arrays else ""
        rows = {"pictures": f"{self.files:,}" + (f", {self.failed:,} left out" if self.failed else "")}
        if not self.arrays:
            rows["bytes in"] = f"{self.bytes_in:,}"
        rows["bytes out"] = f"{self.bytes_out:,}{share}"
        rows["bits per pixel"] = f"{8 * self.bytes_out / self.pixels:.4g}"
        if self.measured:
            of = f" (of {self.measured:,} of them)" if self.measured < self.files else ""
            rows["PSNR"] = (f"{psnr_db(self.error, self.values):.2f} dB" if self.error else "exact") + of
        return rows


def _to_files(
    codec: PictureCodec,
    pictures: PictureList,
    targets: Sequence[Path],
    rate: RateOptions,
    totals: Totals,
    *,
    overwrite: bool,
) -> None:
    """A file for each picture."""
    from smalti.files import output_errors, write_atomically

    for target in targets:
        free_to_write(target, overwrite)
    with counting("compressing") as tell:
        for done, (number, contents) in enumerate(pictures, 1):
            target = targets[number]
            with totals.going_on(pictures.names[number], CodecError):
                picture = totals.read(contents)
                data = codec.compress(picture, **dataclasses.asdict(rate))
                with output_errors(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target, lambda file, data=data: file.write(data))  # type: ignore[misc]
                totals.count(picture)
                totals.bytes_out += len(data)
                totals.measure(codec.read(data), picture)
            tell(done, len(pictures))


def _to_archive(
    codec: PictureCodec,
    pictures: PictureList,
    out: Path,
    rate: RateOptions,
    archive: ArchiveOptions,
    totals: Totals,
    *,
    overwrite: bool,
) -> None:
    """One archive."""
    from smalti.data.order import evenly_spread

    settings, labels = _archive_settings(pictures, out, rate, archive)
    before = out.stat().st_size if archive.append else 0
    wanted, kept = set(evenly_spread(len(pictures), SAMPLE).tolist()), dict[int, Any]()
    with codec.write_archive(out, effort=rate.effort, overwrite=overwrite, append=archive.append, **settings) as writer:
        if writer.writer.dropped:
            console.note(f"{out} was not finished: cut off {writer.writer.dropped}")
        place = writer.writer.images
        with counting("compressing") as tell, _interruption(writer, out):
            for done, (number, contents) in enumerate(pictures, 1):
                name = pictures.names[number]
                with totals.going_on(name):
                    picture = totals.read(contents)
                    _check_name(name)
                    writer.add(picture, name=name, label=labels[number])
                    totals.count(picture)
                    if number in wanted and picture.pixels.size <= SAMPLE_PIXELS - sum(
                        p.pixels.size for p in kept.values()
                    ):
                        kept[place] = picture
                    place += 1
                tell(done, len(pictures))
    if not totals.files and not archive.append:
        out.unlink()
    totals.bytes_out = out.stat().st_size - before if out.exists() else 0
    _measure(codec, out, kept, totals)


def _measure(codec: PictureCodec, out: Path, kept: dict[int, Picture], totals: Totals) -> None:
    """Read some pictures of the archive again."""
    if not kept:
        return
    with codec.open_archive(out) as archive:
        blocks = sorted({archive.reader.block_of(number)[0] for number in kept})
        for block, found in archive.blocks(blocks):
            for number, picture in zip(archive.reader.images_of(block), found, strict=True):
                if number in kept:
                    totals.measure(picture, kept[number])


def _archive_settings(
    pictures: PictureList, out: Path, rate: RateOptions, archive: ArchiveOptions
) -> tuple[dict[str, Any], list[int]]:
    """The settings of the archive, those of the existing one where none are given; and the labels of the pictures."""
    from smalti.codec.archive import ArchiveReader

    if not archive.append:
        settings = {"quality": rate.quality, "per_block": archive.per_block or 16, "classes": pictures.classes}
        return settings, pictures.labels
    with ArchiveReader(out) as reader:
        there = reader.header
    unknown = [name for name in pictures.classes if name not in there.classes]
    if unknown and there.classes:
        raise ConfigError(f"{out} has no class {unknown[0]!r}; its classes are {', '.join(there.classes)}")
    numbers = [there.classes.index(name) for name in pictures.classes] if there.classes else []
    labels = [numbers[label] if label >= 0 and numbers else -1 for label in pictures.labels]
    settings = {
        "quality": rate.quality or there.step or None, "per_block": archive.per_block or there.per_block,
        "classes": there.classes, "named": there.named,
    }  # fmt: skip
    return settings, labels


def _check_name(name: str) -> None:
    from smalti.codec.archive import NAME_LIMIT

    if len(name.encode("utf-8", "surrogateescape")) > NAME_LIMIT:
        raise DataError(f"its name has more than {NAME_LIMIT:,} bytes; rename it")


@contextlib.contextmanager
def _interruption(writer: ImageArchiveWriter, out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        writer.settle()
        console.note(f"stopped: {out} holds {writer.writer.images:,} images, and --append adds the others")
        raise


def _check_options(out: Path, rate: RateOptions, archive: ArchiveOptions, *, to_archive: bool, overwrite: bool) -> None:
    """Check, before anything is read, that the options fit each other."""
    from smalti.pipelines.codec import Rate
    from smalti.pipelines.picture_codec import check_effort

    Rate(rate.quality, rate.max_bytes, rate.bpp, rate.target_psnr)
    check_effort(rate.effort or 0)
    check_effort(rate.tune, "tune")
    if to_archive:
        given = {"--max-bytes": rate.max_bytes, "--bpp": rate.bpp, "--target-psnr": rate.target_psnr}
        given["--tune"] = rate.tune or None
        wrong = [name for name, value in given.items() if value is not None] + ["--exact"] * rate.exact
        if wrong:
            raise ConfigError(f"{wrong[0]} is not for archives, whose pictures have one --quality; give --out a folder")
        if archive.append and overwrite:
            raise ConfigError("--append and --overwrite contradict each other; give one of them")
        if archive.append and not out.exists():
            raise ConfigError(f"there is no {out} to append to; leave --append out to begin it")
    elif archive != ARCHIVE:
        raise ConfigError(f"--per-block and --append are for archives, but --out is {out}; give a name ending in .smt")
    elif out.is_file() and out.suffix.lower() != IMAGE_EXTENSION:
        raise ConfigError(f"{out} is a file; give --out a folder, or a name ending in .smt")


def _check_inputs(images: Sequence[str], out: Path) -> None:
    """Raise OutputError if the output is one of the inputs."""
    for name in images:
        with contextlib.suppress(OSError):
            if out.is_file() and os.path.samefile(name, out):
                raise OutputError(f"{out} is one of the images itself; give another --out")


def _say_which_model(codec: PictureCodec) -> None:
    from smalti.pipelines.codec_models import zoo_name

    digest = codec.card.digest
    if zoo_name(bytes.fromhex(digest)) is None:
        console.note(
            f"opening it needs the model {digest[:16]}: keep a copy of {codec.path}, beside the file or for --model"
        )
