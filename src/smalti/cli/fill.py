"""`smalti fill`: holes of images filled by a trained prior."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli.apps import app, examples
from smalti.cli.options import Images, SamplingOptions, VersionOptions
from smalti.cli.versions import open_request, write_versions
from smalti.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

SAMPLING = SamplingOptions()
BOX = r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})"
GREY = 128  # of the hole on a sheet
_MODEL = "A prior: a run folder, a checkpoint file, or zoo:NAME; maskgit-small sees all sides of the hole."


@app.command(
    help_epilogue=examples(
        "smalti fill runs/prior photo.png --mask hole.png --out filled/",
        "smalti fill runs/prior photos/ --mask 10,10,12,12 --count 8 --out filled/",
    )
)
def fill(
    model: Annotated[Path, Parameter(help=_MODEL)],
    /,
    *images: Images,
    mask: str,
    versions: VersionOptions,
    sampling: SamplingOptions = SAMPLING,
) -> int:
    """Fill a hole in images with what a trained prior generates there; pixels outside the hole stay as they are.

    Parameters
    ----------
    mask:
        A mask image, white where the hole is; or a box in pixels: x,y,width,height.
    """
    request = open_request(model, versions, sampling)
    _, height, width = request.prior.card.image.shape
    hole = _hole(mask, height, width)
    request.prior.masked_positions(hole)  # a hole that cannot be filled is so for all images

    def draw(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        greyed = picture.copy()
        greyed[hole] = GREY
        return greyed, request.prior.fill(picture, hole, **request.arguments)

    return write_versions(request, images, "fill", draw, mask=Path(mask).name)


def _hole(mask: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool, of a picture, white where the hole is, or of a box: x,y,width,height.

    Raises:
        ConfigError, DataError: a box outside of the image, or a picture that cannot be read or of another size.
    """
    import numpy as np

    from smalti.data import images as decoding

    box = re.fullmatch(BOX, mask.replace(" ", ""))
    hole = np.zeros((height, width), bool)
    if box:
        left, top, wide, high = (int(number) for number in box.groups())
        if left + wide > width or top + high > height or not wide or not high:
            raise ConfigError(
                f"--mask is {mask}: a box of x,y,width,height, but it does not lie inside images of {height}x{width} "
                "(height x width)"
            )
        hole[top : top + high, left : left + wide] = True
        return hole
    if not Path(mask).exists():
        raise DataError(f"there is no mask {mask}; give a picture, white where the hole is, or x,y,width,height")
    picture = decoding.decode(Path(mask), channels=1)[..., 0]
    if picture.shape != hole.shape:
        raise ConfigError(
            f"the mask {mask} is {picture.shape[0]}x{picture.shape[1]}, and the model's images are {height}x{width}"
        )
    found: np.ndarray = picture >= 128
    return found
