"""`smalti decode`: codes back to images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Device, OutPath, Overwrite
from smalti.cli.outputs import free_to_write, refuse_numbered, write_numbered
from smalti.errors import ConfigError

if TYPE_CHECKING:
    from smalti.data.codes import CodeSet

COUNT = 64  # in a grid, where none is given
GRID_LIMIT = 10_000  # images in one picture


@app.command(
    help_epilogue=examples(
        "smalti decode codes/ --out decoded/",
        "smalti decode codes/ --split test --count 100 --out grid.png",
    )
)
def decode(
    codes: Path,
    /,
    *,
    out: OutPath,
    split: str | None = None,
    first: int = 0,
    count: int | None = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Turn codes of smalti encode back into images.

    Parameters
    ----------
    codes:
        The folder that smalti encode wrote.
    out:
        A .png for one grid, or a folder for one file per image.
    split:
        Which split. Default: train, or all where there are no splits.
    first:
        Number of the first image.
    count:
        How many. Default: all of them; 64 in a grid.
    """
    import numpy as np

    from smalti.data.codes import open_codes
    from smalti.pipelines.encoding import decode_codes, open_tokenizer
    from smalti.pipelines.limits import check_pixels
    from smalti.report.pictures import save_grid

    found = open_codes(codes, split)
    gridded = out.suffix.lower() == ".png"
    count = _checked_count(found, first, count, gridded)
    model = open_tokenizer(found, device=device)
    if gridded:
        check_pixels(found.shape, count)
        free_to_write(out, overwrite)
        pictures = np.concatenate([few for _, few in decode_codes(model, found, first=first, count=count)])
        save_grid(pictures, out, text=model.provenance(source=found.source))
        console.note(f"{count} images: {out}")
        return 0
    if not overwrite:
        refuse_numbered(out)
    for start, few in decode_codes(model, found, first=first, count=count):
        write_numbered(out, start, few, lambda number: model.provenance(source=found.about.names[number]))
    console.note(f"{count} images: {out}/")
    return 0


def _checked_count(codes: CodeSet, first: int, count: int | None, gridded: bool) -> int:
    """How many images are asked for; ConfigError for numbers that the codes do not have."""
    if not 0 <= first < len(codes):
        raise ConfigError(f"--first is {first}, but {codes.folder} has images 0 to {len(codes) - 1}")
    left = len(codes) - first
    if count is None:
        count = min(COUNT, left) if gridded else left
    if not 1 <= count <= (min(GRID_LIMIT, left) if gridded else left):
        limit = f", and in one grid at most {GRID_LIMIT}" if gridded else ""
        raise ConfigError(f"--count is {count}, but must be from 1 to {left}{limit}")
    return count
