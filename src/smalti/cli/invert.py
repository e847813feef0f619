"""`smalti invert`: latents from images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.batch_images import Job, process_images
from smalti.cli.options import Device, GANPath, Images, OutPath, Overwrite, Resize
from smalti.errors import ConfigError

if TYPE_CHECKING:
    from smalti.pipelines.gan import GAN

_RESIZE = "Bring images of another size or mode to the model's: cover, contain or stretch. Default: refuse them."


@app.command(
    help_epilogue=examples(
        "smalti invert runs/cifar cat.png --resize cover --out inverted/",
        "smalti generate runs/cifar --interpolate inverted/cat.latent.json,5 --out walk.webp",
    )
)
def invert(
    model: GANPath,
    /,
    *images: Images,
    out: OutPath,
    label: str | None = None,
    steps: int = 200,
    resize: Annotated[Resize | None, Parameter(help=_RESIZE)] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> int:
    """Find the latents whose images are most like given ones: NAME.latent.json, to generate and walk from.

    Parameters
    ----------
    out:
        Folder for the latents, the images that they generate, and before-and-after pairs.
    label:
        Class to generate them as, for a model that was trained with labels.
    steps:
        Steps of the search for each image; more come closer.
    """
    from smalti.cli.generators import load_gan

    gan = load_gan(model, device=device)
    gan.check_inversion(label=label, steps=steps)
    # A bad image is reported and the rest goes on.
    rows, failed = process_images(
        images,
        out,
        overwrite,
        (".png", ".pair.png", ".latent.json"),
        "inverted",
        lambda job: _invert(gan, job, label, steps, resize),
    )
    console.table(("image", "PSNR dB", "latent"), rows)
    console.suggest("generate", model, "--interpolate", f"{rows[0][2]},0", "--out", "walk.webp")
    return 1 if failed else 0


def _invert(gan: GAN, job: Job, label: str | None, steps: int, resize: Resize | None) -> tuple[str, str, str]:
    """Find the latent of one image and write it, its picture and both side by side; a row of the table."""
    from smalti.data import images as decoding
    from smalti.metrics.distortion import psnr_db, squared_error_uint8
    from smalti.pipelines import latents
    from smalti.report.pictures import side_by_side, write_png

    channels, height, width = gan.card.image.shape
    size = None if resize is None else (height, width)
    # A picture without a clear pixel decodes as RGB, even one that a model of RGBA made: alpha is then 255.
    mode = channels if resize or channels == 4 else None
    picture = decoding.decode(job.image, channels=mode, size=size, resize=resize or "cover")
    if picture.shape != (height, width, channels):
        raise ConfigError(
            f"it is {picture.shape[0]}x{picture.shape[1]}x{picture.shape[2]}, and the model makes "
            f"{height}x{width}x{channels}; give --resize cover, contain or stretch"
        )
    z = gan.invert(picture, label=label, steps=steps)
    found = gan.synthesize(z[None], labels=gan.labels([0], label))[0]
    decibels = psnr_db(*squared_error_uint8(picture, found))
    text = gan.provenance(source=job.image.name, steps=steps, label=label)
    found_at, pair_at, latent_at = job.outputs
    write_png(found_at, found, text)
    write_png(pair_at, side_by_side(picture[None], found[None]), text)
    point = latents.Latent(z, label, gan.card.digest)
    latents.write(latent_at, point, source=job.image.name, steps=steps, psnr_db=round(min(decibels, 999.0), 2))
    return str(job.image), f"{decibels:.2f}", str(latent_at)
