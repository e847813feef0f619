"""Which data a configuration names, and which of them are held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_codes import small_codes
from small_runs import pixels, small_config, write_source

from smalti.config.kinds import KINDS
from smalti.config.run import RunConfig
from smalti.data import PackedImages
from smalti.data.codes import CodeSet
from smalti.errors import ConfigError, DataError
from smalti.training.sources import open_training_data, refuse_writing_into_the_data


def config_of(name: str, source: Path, *assignments: str) -> RunConfig:
    return small_config(name, f"data.source={source}", *assignments)


def folders(place: Path, *splits: str) -> Path:
    for number, split in enumerate(splits):
        (place / split).mkdir(parents=True)
        for index, picture in enumerate(pixels(3 + number, seed=number)):
            Image.fromarray(picture).save(place / split / f"{index}.png")
    return place


def test_images_without_splits_have_nothing_held_out(tmp_path: Path, cache: Path) -> None:
    source = write_source(tmp_path / "discs.npz")
    calls: list[tuple[int, int | None]] = []
    images, held_out = open_training_data(
        config_of("dcgan", source), cache=cache, progress=lambda *call: calls.append(call)
    )
    assert isinstance(images, PackedImages)
    assert (len(images), held_out) == (40, None)
    assert calls[-1] == (40, 40)


@pytest.mark.parametrize(("splits", "expected"), [(("train", "test"), "test"), (("train", "test", "val"), "val")])
def test_the_val_split_is_held_out_before_the_test_split(
    tmp_path: Path, cache: Path, splits: tuple[str, ...], expected: str
) -> None:
    images, held_out = open_training_data(config_of("vqvae", folders(tmp_path / "in", *splits)), cache=cache)
    assert held_out is not None
    assert (images.split, held_out.split) == ("train", expected)


def test_another_source_is_held_out_at_the_same_size(tmp_path: Path, cache: Path) -> None:
    source, other = write_source(tmp_path / "discs.npz"), write_source(tmp_path / "large.npz", side=24, count=5)
    config = config_of("vqvae", source, "data.size=[8, 8]", "data.channels=1")
    images, held_out = open_training_data(config, str(other), cache)
    assert held_out is not None
    assert images.spec == held_out.spec
    assert (images.spec.shape, len(held_out)) == ((1, 8, 8), 5)


def test_codes_are_opened_for_a_recipe_that_learns_codes(tmp_path: Path) -> None:
    small_codes(tmp_path)
    codes, held_out = open_training_data(config_of("prior-nano", tmp_path / "codes"))
    assert isinstance(codes, CodeSet)
    assert isinstance(held_out, CodeSet)
    assert (codes.split, held_out.split) == ("train", "test")


def test_codes_and_images_are_not_confused(tmp_path: Path, cache: Path) -> None:
    small_codes(tmp_path)
    source = write_source(tmp_path / "discs.npz")
    with pytest.raises(ConfigError, match="holds codes, which the recipe prior or context learns; vqvae learns images"):
        open_training_data(config_of("vqvae", tmp_path / "codes"), cache=cache)
    with pytest.raises(
        ConfigError, match=r"holds images; write codes with `smalti.pipelines.encode_dataset` RUN SOURCE `out=CODES`"
    ) as found:
        open_training_data(config_of("prior-nano", source), cache=cache)
    assert found.value.arguments == ("out", "data")
    with pytest.raises(DataError, match=r"held_out=.*discs\.npz` holds no codes, which `data="):
        open_training_data(config_of("prior-nano", tmp_path / "codes"), str(source))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.size=[8, 8]", "codes have the size"),
        ("data.channels=1", "codes have the size"),
        ("data.shift=2", "codes have the size"),
        ("data.flip=true", "neither mirrored nor resized"),
        ("data.resize=stretch", "neither mirrored nor resized"),
    ],
)
def test_settings_that_codes_cannot_have(tmp_path: Path, change: str, said: str) -> None:
    small_codes(tmp_path)
    with pytest.raises(ConfigError, match=said):
        open_training_data(config_of("prior-nano", tmp_path / "codes", change))


def test_a_kind_of_data_that_no_source_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "vqvae", dataclasses.replace(KINDS["vqvae"], data="songs"))
    with pytest.raises(ConfigError, match="the recipe vqvae learns songs, which no source holds"):
        open_training_data(config_of("vqvae", write_source(tmp_path / "discs.npz")))


def test_a_run_does_not_go_into_its_own_images(tmp_path: Path) -> None:
    source = folders(tmp_path / "in", "train")
    config = config_of("vqvae", source)
    refuse_writing_into_the_data(config, tmp_path / "out", tmp_path / "cache")
    for arguments, name in (((source / "run",), "out"), ((tmp_path / "out", source), "cache")):
        with pytest.raises(ConfigError, match=f"{name}=.*` lies inside the images of `data=") as found:
            refuse_writing_into_the_data(config, *arguments)
        assert found.value.arguments == (name, "data")
    np.savez(tmp_path / "file.npz", images=pixels(2))
    refuse_writing_into_the_data(config_of("vqvae", tmp_path / "file.npz"), tmp_path / "file.npz" / "x")
