"""`smalti compare-codecs`: a codec against JPEG, WebP, AVIF and JPEG XL on the user's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Device, ModelPath, OutPath, Overwrite
from smalti.cli.outputs import free_to_write
from smalti.cli.progress import counting, counting_parts
from smalti.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from smalti.evaluation.codecs import CodecComparison

COUNT, PIXELS, FEWEST = 100, 4_000_000, 4  # images by default, and their pixels; but not fewer images

_SOURCE = "A folder of pictures that the model was not trained on, or a data source: an archive, cifar10, emoji."
_COUNT = "How many of the pictures, spread evenly. Default: 100, or fewer if these have more than 4 million pixels."
_OUT = "File for a page with charts and tables, ending in .html; the record is written beside it as .json."


@app.command(
    name="compare-codecs",
    help_epilogue=examples(
        "smalti compare-codecs runs/thumb new-thumbnails/ --out codecs.html",
        "smalti compare-codecs zoo:photo holiday/ --count 12 --effort 16",
    ),
)
def compare_codecs(
    model: ModelPath,
    source: Annotated[str, Parameter(help=_SOURCE)],
    /,
    *,
    out: Annotated[OutPath | None, Parameter(help=_OUT)] = None,
    count: Annotated[int | None, Parameter(help=_COUNT)] = None,
    effort: int = 8,
    split: str | None = None,
    device: Device = "cpu",
    cache: Path | None = None,
    overwrite: Overwrite = False,
) -> int:
    """Compare a codec with JPEG, WebP, AVIF and JPEG XL: bytes per image at equal PSNR.

    Parameters
    ----------
    effort:
        Rounds of our search for cheaper codes.
    split:
        Take only pictures of this split.
    cache:
        Folder in which downloads are looked for.
    """
    from smalti.evaluation import codecs
    from smalti.pipelines.base import load_as
    from smalti.pipelines.codec import Codec
    from smalti.pipelines.picture_codec import check_effort
    from smalti.report.codec_page import codec_table

    check_effort(effort)
    if count is not None and count < 1:
        raise ConfigError(f"--count is {count}, but must be at least 1")
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--out is {out}, but the page is HTML; give a name that ends in .html")
        for path in (out, out.with_suffix(".json")):
            free_to_write(path, overwrite)
    codec = load_as(model, Codec, device=device)
    images = read_images(source, codec.card.image.channels, count, split=split, cache=cache)
    with counting_parts() as tell:
        found = codecs.compare_codecs(codec, images, effort=effort, progress=tell)
    for curves in (found.files, found.archives):
        if curves:
            header, rows = codec_table(curves)
            console.table(header, rows)
            console.say()
    for name, reason in found.left_out.items():
        console.note(f"not measured: {name}; {reason}")
    console.say(f"bytes per image of {found.images:,} images at equal PSNR; in brackets: smalti's share of them")
    if out is not None:
        _write(found, out, source, str(model))
    return 0


def read_images(
    source: str, channels: int, count: int | None, *, split: str | None = None, cache: Path | None = None
) -> list[np.ndarray]:
    """Pictures of a source with the channels of a codec, spread evenly over it; broken ones are reported.

    Raises:
        DataError: there are none.
    """
    from smalti.data.order import evenly_spread, permutation
    from smalti.data.picture_list import list_pictures

    with counting("looking") as tell:
        pictures = list_pictures([source], split=split, cache=cache, progress=tell)
    chosen = set(evenly_spread(len(pictures), count or COUNT).tolist())
    contents = {number: found for number, found in pictures if number in chosen}
    images: list[np.ndarray] = []
    numbers = sorted(contents)
    for place in permutation(0, 0, len(numbers)):  # so that a limit on pixels leaves the rest spread as well
        number = numbers[place]
        try:
            image = _decoded(contents[number], channels)
        except DataError as error:
            console.complain(f"{pictures.names[number]} was left out: {error.message}")
            continue
        size = image.shape[0] * image.shape[1]
        if count is None and len(images) >= FEWEST and sum(i.shape[0] * i.shape[1] for i in images) + size > PIXELS:
            break
        images.append(image)
    if not images:
        raise DataError(f"{source} has no picture that can be read; the lines above say why")
    return images


def _decoded(contents: object, channels: int) -> np.ndarray:
    import numpy as np

    from smalti.data.images import change, decode

    if isinstance(contents, DataError):
        raise contents
    if isinstance(contents, np.ndarray):
        return change(contents, channels=channels, size=None)
    assert isinstance(contents, bytes | Path)
    return decode(contents, channels=channels)


def _write(found: CodecComparison, out: Path, source: str, model: str) -> None:
    """Write the page and the record."""
    import json

    from smalti.files import write_atomically
    from smalti.report.codec_page import codec_page

    record = found.record() | {"source": source}
    codec_page(record, source=source, model=model).write(out)
    text = json.dumps(record, indent=2, allow_nan=False)
    write_atomically(out.with_suffix(".json"), lambda file: file.write(text.encode()))
    console.note(f"written: {out}, {out.with_suffix('.json')}")
