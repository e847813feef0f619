"""`smalti restyle`: pictures through a trained translator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli.apps import app, examples
from smalti.cli.options import ModelPath, OutPath
from smalti.cli.picture_jobs import Pictures
from smalti.cli.restore import DEFAULTS, OUT_HELP, PictureOptions, apply_models

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
    options: PictureOptions = DEFAULTS,
) -> int:
    """Give pictures another style with a model of a preset such as restyle-paired.

    Pictures that are in the output folder already are left as they are, so an interrupted job goes on with the same
    command. Colour profile, EXIF, XMP and resolution are kept; animations are restyled frame by frame.
    """

    def opened() -> list[Restorer]:
        from smalti.pipelines.base import load_as
        from smalti.pipelines.translator import Translator

        return [load_as(model, Translator, device=options.device).as_restorer()]

    return apply_models(opened, images, out, options, words=("restyling", "restyled"))
