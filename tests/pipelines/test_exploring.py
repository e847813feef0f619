"""Walks and tables in a latent space, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smalti.errors import ConfigError
from smalti.pipelines import exploring, latents
from smalti.pipelines.gan import GAN


def test_points_are_image_numbers_and_latent_files(labelled: GAN, tmp_path: Path) -> None:
    z = labelled.sample_latents([9], seed=1)[0]
    latents.write(tmp_path / "a.json", latents.Latent(z, "dog", labelled.card.digest))
    found = exploring.points(labelled, f"2, {tmp_path / 'a.json'}", seed=1)
    assert np.array_equal(found.values, labelled.sample_latents([2, 9], seed=1))
    assert (found.label, found.class_name, found.labels(2)) == (1, "dog", [1, 1])
    assert exploring.points(labelled, "2,3").class_name == "cat"
    assert exploring.points(labelled, "2,3", label="dog").class_name == "dog"


def test_a_model_without_labels_has_points_without(model: GAN) -> None:
    found = exploring.points(model, "2,3")
    assert (found.label, found.class_name, found.labels(4)) == (None, None, None)


@pytest.mark.parametrize("text", ["3", "", "3,,4", ",".join(["1"] * 101)])
def test_the_argument_is_called_as_the_caller_calls_it(model: GAN, text: str) -> None:
    with pytest.raises(ConfigError, match="must be from 2 to 100 image numbers") as found:
        exploring.points(model, text, name="mix")
    assert found.value.arguments == ("mix",)


def test_a_walk_begins_and_ends_at_its_points(model: GAN) -> None:
    found = exploring.points(model, "3,7")
    frames = exploring.walk(model, found, 5)
    assert np.array_equal(frames[[0, -1]], model.synthesize(found.values))
    with pytest.raises(ConfigError, match="`count` is 1, but a walk over 2 pictures has at least as many frames"):
        exploring.walk(model, found, 1)
    with pytest.raises(ConfigError, match="truncation is 2"):
        exploring.walk(model, found, 5, truncation=2)


def test_a_table_has_the_points_on_its_diagonal(model: GAN) -> None:
    found = exploring.points(model, "3,7,8")
    table = exploring.mix(model, found).reshape(3, 3, 16, 16, 3)
    assert np.array_equal(table[range(3), range(3)], model.synthesize(found.values))
    assert np.array_equal(table[0, 1], table[1, 0])
