"""Sets of codes on disk: whole or begun, damaged, of another tokenizer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from small_codes import CODES, about_codes, small_codes, some_codes

from smalti.data.codes import CodesAbout, CodeWriter, has_these_codes, is_code_set, open_codes
from smalti.errors import DataError, OutputError


def write(folder: Path, *, count: int = 10, digest: str = "d", **options) -> None:
    writer = CodeWriter(folder, about_codes(count, digest, **options), np.arange(count) % 2)
    writer.append(some_codes(count, planes=options.get("planes", 1)))
    writer.finish()
    writer.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, planes=3)
    codes = open_codes(tmp_path)
    assert len(codes) == 10
    assert codes.codes.dtype == np.int16
    assert np.array_equal(codes.codes, some_codes(10, planes=3))
    assert codes.about.codebook_sizes == (CODES,) * 3
    assert codes.shape == (3, 16, 16)
    assert (codes.classes, codes.split) == (("left", "right"), None)
    batch = codes.take(np.array([3, 1]))
    assert batch.captions == ["red disc", "red disc"]
    assert batch.codes.dtype == np.int64
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 1]


def test_each_epoch_shows_each_row_once_and_a_batch_depends_on_its_place_alone(tmp_path: Path) -> None:
    write(tmp_path)
    codes = open_codes(tmp_path)
    assert sorted(codes.batch(0, 0, 10).indices.tolist()) == list(range(10))
    whole = codes.batch(7, 0, 30).indices
    assert np.array_equal(codes.batch(7, 12, 9).indices, whole[12:21])


def test_large_alphabets_have_wide_codes(tmp_path: Path) -> None:
    about = dataclasses.replace(about_codes(2, "d"), codebook_sizes=(2**17,))
    writer = CodeWriter(tmp_path, about, None)
    writer.append(np.full((2, 1, 4, 4), 2**17 - 1))
    writer.finish()
    codes = open_codes(tmp_path)
    assert codes.codes.dtype == np.int32
    assert codes.labels is None
    assert int(codes.take(np.arange(2)).codes.max()) == 2**17 - 1


def test_a_stopped_encoding_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    about = about_codes(10, "d")
    first = CodeWriter(tmp_path / "broken", about, np.arange(10) % 2)
    first.append(some_codes(10)[:4])
    first.flush()
    with (tmp_path / "broken" / "all" / "codes.npy.partial").open("ab") as file:
        file.write(b"\1" * 7)  # a kill in the middle of a row
    first.close()
    assert is_code_set(tmp_path / "broken")
    with pytest.raises(
        DataError, match=r"was not encoded to its end; repeat `smalti.pipelines.encode_dataset` with the same arguments"
    ):
        open_codes(tmp_path / "broken")
    second = CodeWriter(tmp_path / "broken", about, np.arange(10) % 2)
    assert second.done == 4
    second.append(some_codes(10)[4:])
    second.finish()
    found, whole = open_codes(tmp_path / "broken"), open_codes(tmp_path / "whole")
    assert found.fingerprint == whole.fingerprint
    assert np.array_equal(found.codes, whole.codes)
    assert sorted(path.name for path in (tmp_path / "broken" / "all").iterdir()) == [
        "codes.npy", "index.json", "labels.npy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (about_codes(10, "other"), "its tokenizer is one, not other"),
        (about_codes(20, "one"), "its number of images is 10, not 20"),
        (dataclasses.replace(about_codes(10, "one"), effort=4), "its `effort` is 0, not 4"),
        (dataclasses.replace(about_codes(10, "one"), images="more"), "its fingerprint of the images is fingerprint of"),
    ],
    ids=["tokenizer", "flip", "effort", "images"],
)
def test_what_another_encoding_began_is_kept(tmp_path: Path, other: CodesAbout, said: str) -> None:
    first = CodeWriter(tmp_path, about_codes(10, "one"), None)
    first.append(some_codes(10)[:4])
    first.close()
    with pytest.raises(OutputError, match=f"holds the beginning of another encoding: {said}"):
        CodeWriter(tmp_path, other, None)
    again = CodeWriter(tmp_path, about_codes(10, "one"), None)
    assert again.done == 4
    again.close()
    (tmp_path / "all" / "partial.json").write_text("[")
    with pytest.raises(OutputError, match="its tokenizer is None, not one; give the command that began it"):
        CodeWriter(tmp_path, about_codes(10, "one"), None)


def test_a_kill_just_before_the_index_costs_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    whole = open_codes(tmp_path)
    writer = CodeWriter(tmp_path / "again", about_codes(10, "d"), np.arange(10) % 2)
    writer.append(some_codes(10))
    writer.close()
    place = tmp_path / "again" / "all"
    (place / "codes.npy.partial").rename(place / "codes.npy")
    with pytest.raises(OutputError, match="holds the beginning of another encoding"):
        CodeWriter(tmp_path / "again", about_codes(10, "other"), np.arange(10) % 2)
    assert (place / "codes.npy").exists()
    writer = CodeWriter(tmp_path / "again", about_codes(10, "d"), np.arange(10) % 2)
    assert writer.done == 10
    assert writer.finish().fingerprint == whole.fingerprint


def test_two_encodings_do_not_write_one_file(tmp_path: Path) -> None:
    first = CodeWriter(tmp_path, about_codes(10, "d"), None)
    with pytest.raises(OutputError, match=r"another encoding is at work in .*all; wait for it, or give another `out`"):
        CodeWriter(tmp_path, about_codes(10, "d"), None)
    first.append(some_codes(10))
    first.finish()
    assert len(open_codes(tmp_path)) == 10


def test_more_names_than_an_index_holds_are_refused_before_anything_is_encoded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("smalti.data.codes.INDEX_LIMIT", 500)
    with pytest.raises(OutputError, match=r"names and captions of 100 images take .* MB, but an index holds at most"):
        CodeWriter(tmp_path / "codes", about_codes(100, "d"), None)
    assert not (tmp_path / "codes").exists()


@pytest.mark.parametrize("other", ["codes", "captions", "tokenizer", "labels"])
def test_the_fingerprint_is_of_all_that_counts(tmp_path: Path, other: str) -> None:
    about = about_codes(10, "t" if other == "tokenizer" else "d", captions=other != "captions")
    codes = some_codes(10, seed=int(other == "codes"))
    writer = CodeWriter(tmp_path / "other", about, None if other == "labels" else np.arange(10) % 2)
    writer.append(codes)
    writer.finish()
    write(tmp_path / "one")
    assert open_codes(tmp_path / "other").fingerprint != open_codes(tmp_path / "one").fingerprint


def test_a_set_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no codes; write some with `smalti.pipelines.encode_dataset` RUN SOURCE `out="
    ):
        open_codes(tmp_path)
    write(tmp_path)
    with pytest.raises(DataError, match="has no split 'test'; it has all"):
        open_codes(tmp_path, "test")
    file, index = tmp_path / "all" / "codes.npy", tmp_path / "all" / "index.json"
    content, text = file.read_bytes(), index.read_text()
    file.write_bytes(content[:-3])
    with pytest.raises(DataError, match="is damaged or was cut short"):
        open_codes(tmp_path)
    np.save(file, some_codes(9).astype(np.int16))
    with pytest.raises(DataError, match=r"holds int16 of shape \(9, 1, 4, 4\), but its index says \(10, 1, 4, 4\)"):
        open_codes(tmp_path)
    file.write_bytes(content)
    for broken in (text[:-9], "{}", "[]", text.replace('"format": 1', '"format": 9'), text.replace("[8]", "[-8]")):
        index.write_text(broken)
        with pytest.raises(DataError, match="is damaged or was cut short"):
            open_codes(tmp_path)


def test_codes_outside_of_their_alphabet(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "all" / "codes.npy"
    np.save(file, np.full((10, 1, 4, 4), CODES, np.int16))
    with pytest.raises(DataError, match=r"holds codes outside of its alphabet \(8,\); encode it again"):
        open_codes(tmp_path).batch(0, 0, 4)


def test_other_codes_are_not_written_over(tmp_path: Path) -> None:
    write(tmp_path, digest="a" * 64)
    about = about_codes(10, "a" * 64)
    assert has_these_codes(tmp_path, about)
    assert not has_these_codes(tmp_path, dataclasses.replace(about, split="train"))
    for other, said in (
        (
            {"tokenizer": "b" * 64},
            "holds codes of the tokenizer aaaaaaaaaaaaaaaa, not of bbbbbbbbbbbbbbbb; give another",
        ),
        ({"images": "others"}, r"holds the codes of other images or captions \(discs\); give another `out`"),
        ({"captions": None}, "holds the codes of other images or captions"),
        ({"names": ["a.png"] * 20}, "holds 10 codes of these images, not 20: `flip` makes twice as many; give it as"),
        ({"effort": 3}, "holds codes of `effort` 0, not 3; give another `out`"),
    ):
        with pytest.raises(OutputError, match=said):
            has_these_codes(tmp_path, dataclasses.replace(about, **other))
    index = tmp_path / "all" / "index.json"
    text = index.read_text()
    index.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(OutputError, match="holds codes of format 2, which a newer smalti wrote; give another `out`"):
        has_these_codes(tmp_path, about)
    index.write_text(text[:-5])
    assert not has_these_codes(tmp_path, about), "it was cut short"
    index.write_text(text)
    (tmp_path / "all" / "codes.npy").write_bytes(b"damaged")
    assert not has_these_codes(tmp_path, about), "it can be encoded again"


def test_labels_of_a_huge_size_are_not_read(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "all" / "labels.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": (2**37,)})
        stream.truncate(stream.tell() + 2**40)
    with pytest.raises(DataError, match=r"holds \(137438953472,\) labels for 10 images"):
        open_codes(tmp_path)


@pytest.mark.parametrize("described", ["{'descr': (", "{'descr': '(1i4', 'fortran_order': False, 'shape': (10,)}",
    "{'descr': '<i2', 'fortran_order': False, 'shape': (-100000, 1, 4, 4)}", "{}", "9" * 50], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["codes.npy", "labels.npy"])
def test_a_hostile_array(tmp_path: Path, name: str, described: str) -> None:
    write(tmp_path)
    head = described.encode() + b"\n"
    (tmp_path / "all" / name).write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(99))
    with pytest.raises(DataError, match="encode it again"):
        open_codes(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"names": 5}, {"captions": [1] * 10}, {"tokenizer": 5}, {"source": 7}, {"classes": [1, 2]}, {"split": ["x"]},
     {"codebook_sizes": []}, {"grid": [4]}, {"fingerprint": 3}, {"names": {"a": 1}}, {"classes": ["one"]}],
    ids=str,
)  # fmt: skip
def test_a_hostile_index(tmp_path: Path, changed: dict[str, object]) -> None:
    write(tmp_path)
    index = tmp_path / "all" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changed))
    with pytest.raises(DataError, match="encode it again"):
        open_codes(tmp_path)


def test_an_index_without_as_many_captions(tmp_path: Path) -> None:
    write(tmp_path)
    index = tmp_path / "all" / "index.json"
    plain = json.loads(index.read_text())
    plain["captions"] = plain["captions"][:3]
    index.write_text(json.dumps(plain))
    with pytest.raises(DataError, match="3 captions for 10 images"):
        open_codes(tmp_path)


def test_a_code_set_says_what_it_is(tmp_path: Path) -> None:
    assert repr(small_codes(tmp_path)) == "CodeSet(40 x 1 x 4x4 of (8,), 'discs')"
