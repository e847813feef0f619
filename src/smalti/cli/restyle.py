"""`smalti restyle`: pictures through a trained translator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli.apps import app, examples
from smalti.cli.options import Device, Flag, ModelPath, OutPath, Overwrite
from smalti.cli.picture_jobs import Format, Pictures
from smalti.cli.restore import (
    COMPARE_HELP,
    FORMAT_HELP,
    LIMIT_HELP,
    OUT_HELP,
    PIXEL_LIMIT,
    REFERENCE_HELP,
    STRENGTH_HELP,
    TILE_HELP,
    apply_models,
)

if TYPE_CHECKING:
    from smalti.pipelines.restorer import Restorer


@app.command(
    help_epilogue=examples(
        "smalti restyle runs/restyle photos/ --out drawn/",
        "smalti restyle runs/restyle cat.jpg --out drawn.png --strength 0.7",
    )
)
def restyle(
    model: ModelPath,
    images: Pictures,
    /,
    *,
    out: Annotated[OutPath, Parameter(help=OUT_HELP)],
    format: Annotated[Format | None, Parameter(help=FORMAT_HELP)] = None,
    strength: Annotated[float, Parameter(help=STRENGTH_HELP)] = 1.0,
    self_ensemble: Flag = False,
    tile: Annotated[int | None, Parameter(help=TILE_HELP)] = None,
    pixel_limit: Annotated[int, Parameter(help=LIMIT_HELP)] = PIXEL_LIMIT,
    compare: Annotated[Path | None, Parameter(help=COMPARE_HELP)] = None,
    reference: Annotated[Path | None, Parameter(help=REFERENCE_HELP)] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Give pictures another style with a model of a preset such as restyle-paired.

    Pictures that are in the output folder already are left as they are, so an interrupted job goes on with the same
    command. Colour profile, EXIF, XMP and resolution are kept.

    Parameters
    ----------
    self_ensemble:
        Mean over the eight turned and mirrored pictures: smoother, eight times as long.
    """

    def opened() -> list[Restorer]:
        from smalti.pipelines.base import load_as
        from smalti.pipelines.translator import Translator

        return [load_as(model, Translator, device=device).as_restorer()]

    return apply_models(
        opened, images, out, format=format, strength=strength, self_ensemble=self_ensemble, tile=tile,
        pixel_limit=pixel_limit, compare=compare, reference=reference, overwrite=overwrite,
        words=("restyling", "restyled"),
    )  # fmt: skip
