"""The embedded emoji: complete, undamaged, and split without leaks."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from smalti.data import emoji
from smalti.errors import DataError


@pytest.fixture(scope="module")
def everything() -> emoji.EmojiSet:
    return emoji.read()


@pytest.fixture(scope="module")
def train() -> emoji.EmojiSet:
    return emoji.read("train")


@pytest.fixture(scope="module")
def held_out() -> emoji.EmojiSet:
    return emoji.read("test")


@pytest.fixture(scope="module")
def builder() -> Iterator[ModuleType]:
    """tools/build_emoji.py, which is no part of the package."""
    path = Path(__file__).parents[2] / "tools" / "build_emoji.py"
    spec = importlib.util.spec_from_file_location("build_emoji", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_emoji"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_emoji"]


def codes(part: emoji.EmojiSet) -> set[str]:
    return {name.split(" ", 1)[0] for name in part.names}


# What is in it


def test_there_are_3786_tiles_of_32_pixels(everything: emoji.EmojiSet) -> None:
    assert len(everything) == 3786
    assert everything.images.shape == (3786, 32, 32, 4)
    assert everything.images.dtype == np.uint8
    assert everything.images.flags.c_contiguous
    assert everything.images.flags.writeable
    assert everything.labels.shape == (3786,)
    assert everything.labels.dtype == np.int64
    for field in ("names", "captions", "subcategories", "groups"):
        assert len(getattr(everything, field)) == 3786


def test_labels_are_the_ten_unicode_categories(everything: emoji.EmojiSet) -> None:
    assert len(everything.classes) == 10
    assert everything.classes[0] == "Smileys & Emotion"
    assert set(everything.labels.tolist()) == set(range(10))
    for label, caption in zip(everything.labels, everything.captions, strict=True):
        assert caption.endswith(f", {everything.classes[label]}")


def test_names_are_unique_and_captions_read_well(everything: emoji.EmojiSet) -> None:
    assert len(set(everything.names)) == 3786
    assert everything.names[0] == "1f600 grinning face"
    assert everything.captions[0] == "grinning face, face-smiling, Smileys & Emotion"
    assert "1f44b-1f3fb waving hand sign: light skin tone" in everything.names
    assert "1f1eb-1f1f7 France Flag" in everything.names


def test_a_tile_shows_what_its_name_says(everything: emoji.EmojiSet) -> None:
    heart = everything.images[[name.split(" ")[0] for name in everything.names].index("2764-fe0f")]
    red, green, blue, alpha = (int(value) for value in heart[16, 16])
    assert alpha == 255
    assert red > 180
    assert max(green, blue) < 100
    assert heart[0, 0, 3] == 0


def test_no_tile_is_empty_and_invisible_pixels_are_zero(everything: emoji.EmojiSet) -> None:
    alpha = everything.images[..., 3]
    assert alpha.reshape(3786, -1).max(axis=1).min() > 200
    assert not everything.images[alpha == 0].any()


def test_pixels_are_these_forever(everything: emoji.EmojiSet) -> None:
    # The decoder must give the same pixels on each machine: published numbers depend on them.
    digest = hashlib.sha256(everything.images.tobytes()).hexdigest()
    assert digest == "67e5a60e6fe7ea4032bce332e70ec93f91b0fa3dfbc5c5671cf8144ead14755e"


def test_reading_twice_gives_equal_and_separate_arrays(everything: emoji.EmojiSet) -> None:
    again = emoji.read()
    assert np.array_equal(again.images, everything.images)
    assert np.array_equal(again.labels, everything.labels)
    assert again.names == everything.names
    assert not np.shares_memory(again.images, everything.images)


def test_files_are_small_and_carry_their_licences() -> None:
    folder = resources.files("smalti.data")
    size = sum(len(folder.joinpath(name).read_bytes()) for name in ("emoji.webp", "emoji.tsv", "emoji.LICENSE.txt"))
    assert size <= 4_000_000
    licence = folder.joinpath("emoji.LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License, Version 2.0" in licence
    assert "Permission is hereby granted" in licence
    assert "Copyright (c) 2013 Cal Henderson" in licence


# The split


def test_the_two_parts_are_the_whole(
    everything: emoji.EmojiSet, train: emoji.EmojiSet, held_out: emoji.EmojiSet
) -> None:
    assert len(train) + len(held_out) == 3786
    assert set(train.names) | set(held_out.names) == set(everything.names)
    assert train.classes == held_out.classes == everything.classes
    by_name = dict(zip(everything.names, everything.images, strict=True))
    for part in (train, held_out):
        assert all(np.array_equal(by_name[name], image) for name, image in zip(part.names, part.images, strict=True))


def test_docstring_tells_the_size_of_the_test_part(held_out: emoji.EmojiSet) -> None:
    assert emoji.__doc__ is not None
    assert f"{len(held_out)} emoji, {len(held_out) / 37.86:.1f} %, are for testing" in emoji.__doc__
    assert 0.08 < len(held_out) / 3786 < 0.12


def test_no_group_is_on_both_sides(train: emoji.EmojiSet, held_out: emoji.EmojiSet) -> None:
    assert not set(train.groups) & set(held_out.groups)


def test_each_side_is_the_one_its_group_hashes_to(
    train: emoji.EmojiSet, held_out: emoji.EmojiSet, builder: ModuleType
) -> None:
    assert {builder.side_of(group) for group in train.groups} == {"train"}
    assert {builder.side_of(group) for group in held_out.groups} == {"test"}


def test_no_picture_of_the_test_part_is_in_the_train_part(
    train: emoji.EmojiSet, held_out: emoji.EmojiSet, builder: ModuleType
) -> None:
    def visible(images: np.ndarray) -> np.ndarray:
        pixels = images.astype(np.float32)
        pixels[..., :3] *= pixels[..., 3:] / 255
        return pixels

    seen = visible(train.images).reshape(len(train), -1)
    energy = (seen * seen).sum(axis=1)
    for turned in builder.turns(visible(held_out.images)):
        flat = turned.reshape(len(held_out), -1)
        distance = energy[:, None] + (flat * flat).sum(axis=1)[None] - 2 * seen @ flat.T
        nearest = np.sqrt(max(float(distance.min()), 0.0) / flat.shape[1])
        assert nearest > 0.99 * builder.LOOKS_THE_SAME


VARIANTS_OF_ONE_EMOJI = {
    "runners": ["1f3c3", "1f3c3-1f3ff", "1f3c3-200d-2640-fe0f", "1f3c3-1f3fb-200d-2642-fe0f-200d-27a1-fe0f"],
    "farmers": ["1f468-200d-1f33e", "1f469-1f3fd-200d-1f33e", "1f9d1-200d-1f33e"],
    "people of each age and hair": ["1f466", "1f467", "1f468-200d-1f9b0", "1f469-1f3fc", "1f474", "1f9d3", "1f471"],
    "families": ["1f46a", "1f468-200d-1f469-200d-1f466", "1f469-200d-1f467-200d-1f467", "1f9d1-200d-1f9d2"],
    "couples": ["1f491", "1f468-200d-2764-fe0f-200d-1f468", "1f469-1f3fb-200d-2764-fe0f-200d-1f468-1f3ff"],
    "kisses": ["1f48f", "1f469-200d-2764-fe0f-200d-1f48b-200d-1f468"],
    "hand in hand": [
        "1f46b",
        "1f46c",
        "1f46d",
        "1f9d1-200d-1f91d-200d-1f9d1",
        "1f469-1f3fb-200d-1f91d-200d-1f468-1f3ff",
    ],
    "royalty": ["1f934", "1f478-1f3fe", "1fac5"],
    "christmas": ["1f385", "1f936", "1f9d1-200d-1f384"],
    "merpeople": ["1f9dc", "1f9dc-200d-2640-fe0f", "1f9dc-1f3fb-200d-2642-fe0f"],
    "handshakes": ["1f91d", "1faf1-1f3fb-200d-1faf2-1f3ff"],
    "one flag": ["1f1eb-1f1f7", "1f1e8-1f1f5", "1f1f2-1f1eb"],
    "almost one flag": ["1f1f7-1f1f4", "1f1f9-1f1e9"],
    "cats": ["1f408", "1f408-200d-2b1b"],
    "lemon and lime": ["1f34b", "1f34b-200d-1f7e9"],
    "arrows": ["2b05-fe0f", "2b06-fe0f", "27a1-fe0f", "2b07-fe0f"],
    "clocks": ["1f550", "1f567"],
    "keycaps": ["0023-fe0f-20e3", "0039-fe0f-20e3"],
}


@pytest.mark.parametrize("variants", VARIANTS_OF_ONE_EMOJI.values(), ids=VARIANTS_OF_ONE_EMOJI.keys())
def test_variants_of_one_emoji_share_a_group(everything: emoji.EmojiSet, variants: list[str]) -> None:
    group_of = dict(zip((name.split(" ", 1)[0] for name in everything.names), everything.groups, strict=True))
    assert len({group_of[code] for code in variants}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1f600", "1f603"),  # grinning face, smiling face
        ("1f468-200d-1f33e", "1f468-200d-1f373"),  # farmer, cook
        ("1f3c3", "1f6b6"),  # runner, walker
        ("2640-fe0f", "2642-fe0f"),  # the signs themselves
        ("1f1e9-1f1ea", "1f1e7-1f1ea"),  # Germany, Belgium
        ("1f468", "1f46a"),  # man, family
    ],
)
def test_different_emoji_have_different_groups(everything: emoji.EmojiSet, one: str, other: str) -> None:
    group_of = dict(zip((name.split(" ", 1)[0] for name in everything.names), everything.groups, strict=True))
    assert group_of[one] != group_of[other]


def test_both_parts_have_people_and_things(train: emoji.EmojiSet, held_out: emoji.EmojiSet) -> None:
    assert len(set(held_out.labels.tolist())) >= 9
    assert len(set(train.labels.tolist())) == 10
    assert codes(train).isdisjoint(codes(held_out))


# The builder


def test_group_key_forgets_tone_gender_and_direction(builder: ModuleType) -> None:
    assert builder.group_key("1F3C3-200D-2640-FE0F-200D-27A1-FE0F") == "1f3c3"
    assert builder.group_key("1F469-200D-1F680") == builder.group_key("1F9D1-200D-1F680") == "person-1f680"
    assert builder.group_key("1F469-200D-1F9B0") == "person"
    assert builder.group_key("1F3FB") == "skin tone"
    assert builder.group_key("27A1-FE0F") == "arrow"
    assert builder.group_key("2640-FE0F") == "2640"


def test_halving_averages_premultiplied_colours(builder: ModuleType) -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[0, 0] = (200, 100, 50, 255)  # one opaque pixel among three clear ones: a quarter as opaque, same colour
    image[0, 1] = (255, 255, 255, 0)  # an invisible white must not bleach it
    image[2, 2] = image[3, 3] = (255, 0, 0, 255)
    image[2, 3] = image[3, 2] = (0, 0, 255, 255)
    half = builder.halve(image)
    assert half[0, 0].tolist() == [200, 100, 50, 64]
    assert half[1, 1].tolist() == [128, 0, 128, 255]
    assert half[5, 5].tolist() == [0, 0, 0, 0]


def test_mosaic_and_tiles_are_inverse(builder: ModuleType) -> None:
    images = np.random.default_rng(0).integers(0, 256, (25, 32, 32, 4), dtype=np.uint8)
    images[..., 3] = 255
    whole = builder.mosaic(images)
    assert whole.shape == (3 * 32, 12 * 32, 4)
    assert np.array_equal(whole[32:64, 32:64], images[13])
    assert builder.COLUMNS == emoji.COLUMNS
    assert builder.SIDE == emoji.SIDE


# What goes wrong


@pytest.mark.parametrize("split", ["validation", "Train", "", "tset"])
def test_an_unknown_split_is_refused_with_the_known_ones(split: str) -> None:
    with pytest.raises(DataError, match=r"emoji have no split .*t(est|rain)"):
        emoji.read(split)


def test_a_damaged_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = emoji._file

    def cut(name: str) -> bytes:
        return whole(name)[:-1] if name == "emoji.webp" else whole(name)

    monkeypatch.setattr(emoji, "_file", cut)
    with pytest.raises(DataError, match=r"emoji\.webp is damaged .* reinstall smalti"):
        emoji.read()


def test_a_missing_file_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(emoji.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"emoji\.tsv cannot be read: reinstall smalti"):
        emoji.read()


def test_a_table_with_windows_line_ends_is_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = emoji._file
    monkeypatch.setattr(
        emoji, "_file", lambda name: whole(name).replace(b"\n", b"\r\n") if name == "emoji.tsv" else whole(name)
    )
    assert emoji.read("test").names == emoji.read("test").names
