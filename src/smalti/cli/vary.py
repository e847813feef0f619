"""`smalti vary`: images like given ones, from a trained prior."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli.apps import app, examples
from smalti.cli.options import Images, SamplingOptions, VersionOptions
from smalti.cli.versions import open_request, write_versions

if TYPE_CHECKING:
    import numpy as np

SAMPLING = SamplingOptions()


@app.command(
    help_epilogue=examples(
        "smalti vary runs/prior photo.png --strength 0.3 --out varied/",
    )
)
def vary(
    model: Annotated[Path, Parameter(help="A prior: a run folder (its last save), a checkpoint file, or zoo:NAME.")],
    /,
    *images: Images,
    versions: VersionOptions,
    strength: float = 0.3,
    sampling: SamplingOptions = SAMPLING,
) -> int:
    """Generate images like given ones: a trained prior samples some of their codes anew, chosen at random.

    Parameters
    ----------
    strength:
        The share of the codes that is sampled anew, above 0; 1 generates entirely other images.
    """
    from smalti.pipelines.inpainting import check_strength

    check_strength(strength)
    request = open_request(model, versions, sampling)

    def draw(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return picture, request.prior.vary(picture, strength=strength, **request.arguments)

    return write_versions(request, images, "vary", draw, strength=strength)
