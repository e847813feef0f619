"""Inversion: pictures that a generator made are found again, and what cannot be inverted is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from generators import write_generator
from torch import Tensor

from smalti.errors import CheckpointError, ConfigError
from smalti.features.extractor import extractor
from smalti.pipelines import base as api
from smalti.pipelines import inversion
from smalti.pipelines.gan import GAN
from smalti.runtime.pixels import to_tensor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GAN:
    return api.load(write_generator(tmp_path_factory.mktemp("inversion") / "plain.safetensors"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> GAN:
    path = tmp_path_factory.mktemp("inversion") / "labelled.safetensors"
    return api.load(write_generator(path, classes=("cat", "dog")))


def error(model: GAN, image: np.ndarray, z: np.ndarray, labels: list[int] | None = None) -> float:
    return float(np.square(model.synthesize(z[None], labels=labels)[0].astype(float) - image).mean())


@torch.no_grad()
def distance(model: GAN, image: np.ndarray, z: np.ndarray) -> float:
    """The formula of pipelines/inversion.py without its last term, by the loss as trainings use it."""
    found, wanted = model.module(torch.from_numpy(z)[None]), to_tensor(image[None])
    perceptual = extractor("smalti-vit").perceptual_loss()(found.clamp(-1, 1), wanted)
    return float(inversion.PIXEL_WEIGHT * (found - wanted).square().mean() + perceptual)


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_of_the_generator_is_found_again(model: GAN, number: int) -> None:
    image = model.generate(1, seed=5, first=number)[0]
    errors = [error(model, image, model.invert(image, steps=steps)) for steps in (0, 3, 9)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < errors[0] / 2


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_are_found_as_well(tmp_path: Path, channels: int) -> None:
    model = api.load(write_generator(tmp_path / "a.safetensors", channels=channels))
    image = model.generate(1, seed=5)[0]
    first, last = (model.invert(image, steps=steps) for steps in (0, 4))
    assert error(model, image, last) < error(model, image, first)


def test_a_label_is_held_fixed(labelled: GAN) -> None:
    image = labelled.generate(1, seed=5, label="dog")[0]
    first, last = (labelled.invert(image, label="dog", steps=steps) for steps in (0, 4))
    assert error(labelled, image, last, [1]) < error(labelled, image, first, [1])
    assert error(labelled, image, last, [1]) < error(labelled, image, last, [0])


def test_no_number_of_steps_is_worse_than_none(model: GAN) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)  # nothing that it can draw
    known = model.synthesize(model.invert(noise, steps=0)[None])[0]  # of a latent that is among the first ones
    for image in (noise, known):
        nearest = distance(model, image, model.invert(image, steps=0))
        for steps in (1, 3):
            assert distance(model, image, model.invert(image, steps=steps)) <= nearest * 1.00001


def test_without_a_step_it_is_one_of_the_latents_drawn(model: GAN) -> None:
    image = model.generate(1, seed=5)[0]
    seen: list[Tensor] = []
    hook = model.module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    found = model.invert(image, steps=0)
    hook.remove()
    drawn = torch.cat(seen).numpy()[: inversion.CANDIDATES]
    assert drawn.shape == (inversion.CANDIDATES, 8)
    assert (drawn == found).all(axis=1).sum() == 1
    errors = np.square(model.synthesize(drawn).astype(float) - image).mean(axis=(1, 2, 3))
    assert error(model, image, found) <= np.quantile(errors, 0.1), "near when seen coarsely is near when seen sharply"


def test_the_same_seed_finds_the_same_latent_and_leaves_other_draws_alone(model: GAN) -> None:
    image = model.generate(1, seed=5)[0]
    before = torch.random.get_rng_state()
    found = [model.invert(image, steps=1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert (found[0].shape, found[0].dtype) == ((8,), np.float32)


def test_the_latent_stays_where_those_of_training_lie(model: GAN) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    assert 0.3 < np.square(model.invert(image, steps=4)).mean() < 3


def test_gradients_are_taken_where_they_are_off_and_left_nowhere(model: GAN) -> None:
    image = model.generate(1, seed=5)[0]
    expected = model.invert(image, steps=1)
    model.module.requires_grad_(True)
    with torch.no_grad():
        assert np.array_equal(model.invert(image, steps=1), expected)
    assert all(weight.grad is None for weight in model.module.parameters())
    model.module.requires_grad_(False)


def test_a_read_only_picture_is_taken_and_left_as_it_is(model: GAN) -> None:
    image = model.generate(1, seed=5)[0]
    image.setflags(write=False)
    kept = image.copy()
    model.invert(image[::-1, ::-1], steps=0)
    assert np.array_equal(image, kept)


# What is refused


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((20, 24, 3), np.uint8), "20x24x3"),
        (np.zeros((16, 16, 1), np.uint8), "16x16x1"),
        (np.zeros((16, 16), np.uint8), "16x16 "),
        (np.zeros((1, 16, 16, 3), np.uint8), "1x16x16x3"),
        (np.zeros((16, 16, 3), np.float32), "float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_shape_or_type_names_both(model: GAN, image: np.ndarray, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"{found}.* makes 16x16x3"):
        model.invert(image, steps=0)


@pytest.mark.parametrize("steps", [-1, 100_001])
def test_steps_out_of_range(model: GAN, steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps is {steps}, but must be from 0 to 100000"):
        model.invert(np.zeros((16, 16, 3), np.uint8), steps=steps)


def test_labels_that_do_not_fit(model: GAN, labelled: GAN) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    for drawing, label, said in (
        (model, "cat", "trained without labels"),
        (labelled, None, "draws by label; say which with `label`; known: cat, dog"),
        (labelled, "dgo", "did you mean 'dog'"),
    ):
        with pytest.raises(ConfigError, match=said):
            drawing.invert(image, label=label, steps=0)


def test_a_model_that_is_no_generator(trained: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match="is a vqvae, which draws no new images"):
        api.load_as(trained.vqvae, GAN).invert(np.zeros((16, 16, 3), np.uint8))
