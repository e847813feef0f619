"""Cluster labels of similar images, and priors conditioned on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_codes import small_codes
from small_runs import settings

from smalti import data
from smalti.config.parse import override
from smalti.config.presets import preset
from smalti.config.prior import PriorConfig
from smalti.data.codes import open_codes
from smalti.errors import ConfigError
from smalti.features.clustering import MOST_GROUPS, check_groups, group
from smalti.models.prior.conditioning import ClassEncoder
from smalti.models.prior.image_prior import ImagePrior
from smalti.pipelines import base as api
from smalti.recipes.prior import PriorRecipe
from smalti.training.batches import first_batches


def write_two_kinds(folder: Path, count: int = 12) -> Path:
    """Alternating flat dark pictures and stripes, with a little noise."""
    chance = np.random.default_rng(0)
    stripes = np.indices((32, 32))[1][..., None] // 4 % 2 * 200
    for split, images in (("train", count), ("test", 4)):
        (folder / split).mkdir(parents=True)
        for number in range(images):
            kind = stripes if number % 2 else np.full((32, 32, 1), 30)
            picture = (kind + chance.integers(0, 20, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(picture).save(folder / split / f"{number:03d}.png")
    return folder


def test_what_looks_alike_is_one_group_in_every_split(tmp_path: Path) -> None:
    source = write_two_kinds(tmp_path / "pictures")
    sets = [data.load(source, split=split, cache=tmp_path / "cache") for split in ("train", "test")]
    found = group(sets, 2, cache=tmp_path / "cache")
    assert [rows.dtype for rows in found] == [np.int64, np.int64]
    first = found[0][0]
    for rows in found:
        assert rows.tolist() == [first, 1 - first] * (len(rows) // 2)
    again = group(sets, 2, cache=tmp_path / "other")
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize(("groups", "images", "most"), [(1, None, MOST_GROUPS), (10_001, None, 10_000), (13, 12, 12)])
def test_too_few_or_too_many_groups(groups: int, images: int | None, most: int) -> None:
    with pytest.raises(ConfigError, match=f"`groups` is {groups}, but must be from 2 to {most}"):
        check_groups(groups, images)


def test_groups_take_the_place_of_labels(smalti, trained: SimpleNamespace) -> None:
    words = ("encode", trained.vqvae, trained.source, "--out", "codes", "--groups", 3)
    done = smalti(*words, "--flip")
    assert done.code == 0, done.err
    assert "smalti train prior-nano --data codes --set model.condition=class --out FOLDER" in done.err
    codes = open_codes("codes")
    assert codes.classes == ("group 0", "group 1", "group 2")
    assert codes.about.groups == 3
    assert codes.labels is not None
    assert set(codes.labels.tolist()) == {0, 1, 2}
    assert np.array_equal(codes.labels[:40], codes.labels[40:]), "mirrored, an image stays in its group"
    assert "holds these codes already" in smalti(*words, "--flip").err
    done = smalti("encode", trained.vqvae, trained.source, "--out", "codes", "--flip")
    assert "codes/all holds codes of --groups 3, not 0; give another --out" in done.err

    words = ("train", "prior-nano", "--data", "codes", "--out", "prior", *settings("prior-nano"))
    assert smalti(*words, "--set", "model.condition=class").code == 0
    assert smalti("generate", "prior", "--count", 4, "--guidance", 2, "--out", "any.png").code == 0
    assert smalti("generate", "prior", "--count", 4, "--label", "group 2", "--out", "one.png").code == 0
    model = api.load("prior")
    shares = np.bincount(codes.labels, minlength=3) / len(codes)
    drawn = np.bincount(model.labels(range(1000)) or [], minlength=3) / 1000
    assert np.abs(drawn - shares).max() < 0.01
    assert model.labels([0, 5], "group 1") == [1, 1]
    done = smalti("evaluate", "prior", "prior", "--on", trained.source, "--out", "bits.json")
    assert done.code == 0, done.err
    assert "has no labels that prior/last.safetensors knows: these are the bits without any" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--groups", "1"), "--groups is 1, but must be from 2 to 10000"),
        (("--groups", "9"), "--groups is 9, but must be from 2 to 8, for there are 8 images to learn them from"),
        (("--groups", "2", "--split", "test"), "leave --split out, or give train"),
    ],
)
def test_mistakes_are_one_line_each(smalti, trained: SimpleNamespace, words: tuple[str, ...], said: str) -> None:
    write_two_kinds(Path("pictures"), 8)
    done = smalti("encode", trained.vqvae, "pictures", "--out", "codes", "--size", "16", *words)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1


def test_labels_come_as_often_as_in_the_training_images(tmp_path: Path) -> None:
    codes = small_codes(tmp_path)
    config = override(preset("prior-nano"), ["model.condition=class", *settings("prior-nano")[1::2]])
    setting = PriorRecipe.context_for(codes, torch.device("cpu"), "float32")
    recipe = PriorRecipe(config, setting)
    recipe.start(lambda: first_batches(recipe, codes, config.data, 0))
    expected = torch.bincount(torch.from_numpy(codes.labels)) / len(codes)
    for prior in (recipe.prior, recipe.export().prior):
        assert isinstance(prior.context, ClassEncoder)
        torch.testing.assert_close(prior.context.shares, expected)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.2, 0.1), (0.0, 1.0), (0.999, 0.0, 0.001)])
def test_usual_labels_fill_their_shares_evenly(tmp_path: Path, shares: tuple[float, ...]) -> None:
    codes = small_codes(tmp_path)
    setting = PriorRecipe.context_for(codes, torch.device("cpu"), "float32")
    assert setting.tokenizer is not None
    config = override(preset("prior-nano"), ["model.condition=class", *settings("prior-nano")[1::2]]).model
    assert isinstance(config, PriorConfig)
    whole = ImagePrior(config, setting.tokenizer.module, setting.image, len(shares))
    assert isinstance(whole.prior.context, ClassEncoder)
    whole.prior.context.shares.copy_(torch.tensor(shares))
    for count in (20, 1000):
        found = np.bincount(whole.labels_by_frequency(range(count)) or [], minlength=len(shares)) / count
        assert np.abs(found - shares).max() <= 2 / count
    assert whole.labels_by_frequency([7, 3]) == [(whole.labels_by_frequency(range(8)) or [])[n] for n in (7, 3)]


def test_without_labels_there_are_no_usual_ones(tmp_path: Path) -> None:
    setting = PriorRecipe.context_for(small_codes(tmp_path), torch.device("cpu"), "float32")
    assert setting.tokenizer is not None
    config = override(preset("prior-nano"), settings("prior-nano")[1::2]).model
    assert isinstance(config, PriorConfig)
    assert ImagePrior(config, setting.tokenizer.module, setting.image, 0).labels_by_frequency([0]) is None
