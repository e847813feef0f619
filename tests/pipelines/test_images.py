"""Images in every form, in and out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import pixels

import smalti
from smalti.errors import ConfigError, DataError
from smalti.pipelines.images import from_array, from_tensor, read_image, read_images
from smalti.runtime.pixels import to_pixels, to_tensor

PICTURES = pixels(4)


def forms(folder: Path) -> dict[str, Any]:
    """The same four pictures in every form that is taken."""
    files = []
    for number, picture in enumerate(PICTURES):
        files.append(folder / f"{number}.png")
        Image.fromarray(picture).save(files[-1])
    return {
        "array": PICTURES,
        "arrays": list(PICTURES),
        "PIL images": [Image.fromarray(picture) for picture in PICTURES],
        "paths": files,
        "strings": [str(file) for file in files],
        "tensor": to_tensor(PICTURES.copy()),
        "a mixture": [files[0], str(files[1]), Image.fromarray(PICTURES[2]), PICTURES[3]],
    }


def test_all_forms_are_the_same_images(tmp_path: Path) -> None:
    for name, images in forms(tmp_path).items():
        found = read_images(images, channels=3, owner="model")
        assert np.array_equal(to_pixels(found) if isinstance(found, torch.Tensor) else found, PICTURES), name


def test_one_image_is_a_batch_of_one(tmp_path: Path) -> None:
    for name, images in forms(tmp_path).items():
        found = read_images(images[:1] if name == "tensor" else images[0], channels=3, owner="model")
        assert np.array_equal(to_pixels(found) if isinstance(found, torch.Tensor) else found, PICTURES[:1]), name


@pytest.mark.parametrize("run", ["vqvae", "eye", "gan"])
def test_every_pipeline_takes_every_form(trained: SimpleNamespace, tmp_path: Path, run: str) -> None:
    model = smalti.load(getattr(trained, run))
    results = []
    for name, images in forms(tmp_path).items():
        if run == "gan":
            results.append(model.invert(images[0], steps=1))
        else:
            results.append(model.reconstruct(images) if run == "vqvae" else model.features(images))
        assert np.array_equal(results[-1], results[0]), name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pil_images_of_any_mode_become_what_the_model_takes(mode: str, channels: int) -> None:
    image = Image.fromarray(PICTURES[0]).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    found = read_images(image, channels=channels, owner="model")
    assert (found.shape, found.dtype) == ((1, 16, 16, channels), np.uint8)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    sizes = [Image.new("RGB", (16, 16)), Image.new("RGB", (8, 16))]
    for images, error, said in (
        (np.zeros((2, 16, 16, 1), np.uint8), ConfigError, r"shape \(2, 16, 16, 1\) and type uint8; model takes"),
        (np.zeros((2, 16, 16, 3)), ConfigError, "type float64"),
        (np.zeros((0, 16, 16, 3), np.uint8), ConfigError, r"shape \(0, 16, 16, 3\)"),
        (torch.zeros(1, 4, 8, 8), ConfigError, r"a tensor of shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ConfigError, "torch.uint8"),
        (sizes, ConfigError, "these have 16x8, 16x16; give them one at a time"),
        ([], ConfigError, "these have none"),
        (tmp_path / "text.png", DataError, "text.png"),
        (tmp_path / "missing.png", DataError, "missing.png"),
        ([7], DataError, "int"),
    ):
        with pytest.raises(error, match=said):
            read_images(images, channels=3, owner="model")


def test_one_image_of_another_shape_is_refused() -> None:
    for image, found in (
        (Image.new("RGB", (8, 16)), "16x8x3"),
        (torch.zeros(3, 8, 8), "8x8x3"),
        (torch.zeros(2, 3, 16, 16), "2x3x16x16"),
        (np.zeros((16, 16, 3), np.float32), r"16x16x3 \(float32\)"),
    ):
        with pytest.raises(ConfigError, match=f"found an image of {found}.* model makes 16x16x3"):
            read_image(image, shape=(3, 16, 16), owner="model")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_outputs_are_the_same_pixels(channels: int) -> None:
    pictures = pixels(3, channels=channels)
    tensor = from_array(pictures, "tensor")
    assert torch.equal(tensor, to_tensor(pictures))
    assert np.array_equal(from_tensor(tensor, "numpy"), pictures)
    listed = from_tensor(tensor, "pil")
    assert [image.mode for image in listed] == [{1: "L", 3: "RGB", 4: "RGBA"}[channels]] * 3
    assert all(
        np.array_equal(np.asarray(image).reshape(16, 16, -1), p) for image, p in zip(listed, pictures, strict=True)
    )


def test_an_unknown_output_is_refused_before_any_work(trained: SimpleNamespace) -> None:
    for use in (smalti.load(trained.gan).generate, smalti.load(trained.vqvae).decode):
        with pytest.raises(ConfigError, match="`output` is 'png', but must be one of numpy, pil, tensor"):
            use(1, output="png")


def test_latents_have_gradients_through_a_generator(drawers: SimpleNamespace) -> None:
    gan = smalti.GAN.from_pretrained(drawers.plain)
    z = torch.randn(3, gan.latent_size, requires_grad=True)
    images = gan.synthesize(z, output="tensor")
    assert images.shape == (3, 3, 16, 16)
    (gradient,) = torch.autograd.grad(images.square().sum(), z)
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert np.array_equal(gan.synthesize(z.detach().numpy()), to_pixels(images))
    assert not gan.synthesize(z.detach(), output="tensor").requires_grad


def test_images_have_gradients_through_an_autoencoder(trained: SimpleNamespace) -> None:
    model = smalti.Autoencoder.from_pretrained(trained.vqvae)
    images = to_tensor(PICTURES.copy()).requires_grad_(True)
    again = model.reconstruct(images, output="tensor")
    (gradient,) = torch.autograd.grad(again.square().sum(), images)
    assert gradient.abs().sum() > 0
    assert np.abs(to_pixels(again).astype(int) - model.reconstruct(PICTURES)).max() <= 1
