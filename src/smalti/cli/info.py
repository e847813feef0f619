"""`smalti info`: what a checkpoint or a compressed file says about itself."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Flag
from smalti.errors import CheckpointError

if TYPE_CHECKING:
    from smalti.codec.archive import FileInfo

LISTED = 20  # classes that are named
_FILE = "A run folder (its last save), a checkpoint file, zoo:NAME, or a file of smalti compress."


@app.command(
    help_epilogue=examples(
        "smalti info runs/photos",
        "smalti info model.safetensors --json",
        "smalti info zoo:thumb",
        "smalti info thumbnails.smt",
    )
)
def info(model: Annotated[Path, Parameter(help=_FILE)], /, *, json: Flag = False) -> int:
    """Print everything a checkpoint or a compressed file says about itself.

    Parameters
    ----------
    json:
        Print JSON instead of a table.
    """
    from smalti.checkpoint.file import read_card
    from smalti.checkpoint.find import find_checkpoint
    from smalti.checkpoint.run_dir import RunFolder
    from smalti.checkpoint.summary import summarize
    from smalti.config.parse import paths

    if _is_compressed(model):
        return _compressed(model, json)
    file = find_checkpoint(model)
    about = summarize(file)
    try:
        if json:
            print(_json(about, indent=2))
            return 0
        console.facts({name: _plain(value) for name, value in about.items() if name != "config"})
    except RecursionError:
        raise CheckpointError(f"{file}: its card is nested too deeply to print; it was changed or damaged") from None
    console.say()
    console.facts(paths(read_card(file).config))
    if file.parent == model:  # a run folder, and neither a checkpoint file nor zoo:NAME
        events = [record for record in RunFolder(model).records() if "event" in record]
        console.say()
        console.say(f"log: {len(events)} events, the last one {_json(events[-1])}" if events else "log: empty")
    return 0


def _is_compressed(path: Path) -> bool:
    """Whether a path is a file that smalti compress wrote, or was meant to be one."""
    from smalti.codec.fields import is_compressed

    try:
        with path.open("rb") as file:
            return is_compressed(file.read(3)) or path.suffix.lower() in (".smt", ".smi")
    except OSError:
        return False


def _compressed(path: Path, json: bool) -> int:
    """Print what a compressed file is made of; returns the exit code."""
    from smalti.codec.archive import info as examine

    found = examine(path)
    about = _about(path, found)
    if json:
        print(_json(about | {"problems": [vars(problem) for problem in found.problems]}, indent=2))
    else:
        console.facts({name: _plain(value) for name, value in about.items() if name not in ("parts", "metadata")})
        console.say()
        console.table(("part", "bytes", "%"), [
            (part, f"{size:,}", f"{100 * size / found.size:.1f}") for part, size in found.parts.items() if size
        ])  # fmt: skip
        for problem in found.problems:
            console.complain(f"{path} is damaged in {problem}")
    return 1 if found.problems else 0


def _about(path: Path, found: FileInfo) -> dict[str, Any]:
    """What a compressed file says about itself; the size of a tiny one is known if its model is at hand."""
    from smalti.codec.archive import ArchiveHeader
    from smalti.codec.headers import TinyHeader
    from smalti.pipelines.codec_models import CodecFinder, UnknownModelError, zoo_name

    header, pixels = found.header, 0
    about: dict[str, Any] = {"file": str(path), "form": found.form.name.lower(), "images": found.images}
    if isinstance(header, TinyHeader):
        shape = None
        with contextlib.suppress(UnknownModelError):
            card = CodecFinder().card(header.digest, source=str(path), folders=[path.absolute().parent])
            shape = card.image.shape
        pixels = shape[1] * shape[2] if shape else 0
        about["image"] = _shape(shape) if shape else "of the size that its model was trained on"
    else:
        about["image"] = _shape((header.channels, header.height, header.width))
        about["bits per sample"], about["payload"] = header.bit_depth, header.payload.name.lower()
        pixels = _archive_pixels(path) if isinstance(header, ArchiveHeader) else header.height * header.width
    about |= ({"quality": header.step} if header.step else {}) | {"size_bytes": found.size}
    if pixels:
        about["bits per pixel"] = round(8 * found.size / pixels, 5)
    if isinstance(header, ArchiveHeader):
        about |= {"images per block": header.per_block, "names": "yes" if header.named else "no"}
        about |= {"classes": list(header.classes), "metadata": dict(header.metadata)}
    about |= {"model": header.digest.hex(), "zoo": zoo_name(header.digest) or "not in the zoo"}
    return about | {"parts": found.parts}


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) + " (channels x height x width)"


def _archive_pixels(path: Path) -> int:
    """Pixels of all images that can be read."""
    from smalti.codec.archive import ArchiveReader
    from smalti.errors import CodecError
    from smalti.pipelines.archive_source import shape_of_block

    pixels = 0
    with ArchiveReader(path) as reader:
        for block in range(reader.block_count):
            with contextlib.suppress(CodecError):  # a damaged block is among the problems
                height, width, _ = shape_of_block(reader, block)
                pixels += height * width * len(reader.images_of(block))
    return pixels


def _json(value: Any, *, indent: int | None = None) -> str:
    """JSON for any reader: NaN and infinity, which JSON has no words for, become null."""
    import json as encoding

    finite = encoding.loads(encoding.dumps(value), parse_constant=lambda _: None)
    return encoding.dumps(finite, indent=indent, allow_nan=False)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        more = f" and {len(value) - LISTED} more, which --json lists" if len(value) > LISTED else ""
        return ", ".join(map(str, value[:LISTED])) + more or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
