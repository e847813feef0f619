"""Feature cache: features are computed once, by keys that distinguish inputs, and damaged files are ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from smalti import data
from smalti.cli import console
from smalti.errors import ConfigError, DataError
from smalti.features.backbones import Backbone
from smalti.features.cache import ArrayImages, collect
from smalti.features.extractor import Extractor
from smalti.features.resizing import Preprocessing


class Means(nn.Module):
    """Sums of pixels as features; counts the images it has processed."""

    seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1)[:, :5] / 7


def made(weights: str = "w") -> tuple[Extractor, Means]:
    network = Means()
    return Extractor(
        "means", Backbone(network, Preprocessing((4, 4), 3, (0.0,), (1.0,)), weights, dimension=5)
    ), network


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def files(cache: Path) -> list[Path]:
    return sorted((cache / "features").iterdir())


def test_features_are_computed_once_for_all_batches(cache: Path) -> None:
    images = ArrayImages(pictures(23))
    extractor, network = made()
    calls: list[tuple[int, int | None]] = []
    first = collect(images, extractor, cache=cache, batch=10, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(10, 23), (20, 23), (23, 23)]
    assert torch.equal(first, extractor.features(images.images))
    assert (first.shape, first.dtype) == ((23, 5), torch.float32)
    network.seen = 0
    calls.clear()
    again = collect(images, extractor, cache=cache, batch=3, progress=lambda done, total: calls.append((done, total)))
    assert network.seen == 0
    assert calls == [(23, 23)]
    assert torch.equal(again, first)
    again += 1  # belongs to the caller


def test_the_file_is_safetensors_that_says_whose_it_is(cache: Path) -> None:
    extractor, _ = made()
    found = collect(ArrayImages(pictures(6)), extractor, cache=cache)
    (path,) = files(cache)
    assert path.name == f"{path.stem}.safetensors"
    assert len(path.stem) == 64
    assert torch.equal(load_file(path)["features"], found)
    assert extractor.digest.encode() in path.read_bytes()


def test_other_images_extractors_and_indices_have_files_of_their_own(cache: Path) -> None:
    images, other = ArrayImages(pictures(9)), ArrayImages(pictures(9, seed=1))
    extractor, network = made()
    found = [
        collect(images, extractor, cache=cache),
        collect(other, extractor, cache=cache),
        collect(images, made("v")[0], cache=cache),
        collect(images, extractor, indices=[4, 2, 7], cache=cache),
        collect(images, extractor, indices=[2, 4, 7], cache=cache),
        collect(images, extractor, indices=np.arange(8), cache=cache),
    ]
    assert len(files(cache)) == 6
    assert torch.equal(found[3], found[0][[4, 2, 7]])
    assert torch.equal(found[4], found[0][[2, 4, 7]])
    network.seen = 0
    assert torch.equal(collect(images, extractor, indices=range(9), cache=cache), found[0])  # all, in their order
    assert network.seen == 0
    assert len(files(cache)) == 6


@pytest.mark.parametrize(
    "harm",
    [
        lambda raw: raw[:-4],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"",
        lambda raw: raw[:5],
        lambda raw: b"\xff" * 8 + raw[8:],
        lambda raw: raw[:8] + b"[" * (len(raw) - 8),
        lambda raw: raw.replace(b"F32", b"F16"),
        lambda raw: raw.replace(b"[6,5]", b"[5,6]"),
        lambda raw: raw.replace(b"sha256", b"sha255"),
        lambda raw: raw.replace(b"[0,120]", b"[0,999]"),
        lambda raw: np.random.default_rng(0).bytes(len(raw)),
    ],
    ids=["short", "long", "a bit", "empty", "no header", "endless header", "no json", "type", "shape", "no sum", "size",
         "noise"],
)  # fmt: skip
def test_a_damaged_file_is_computed_again(harm, cache: Path) -> None:
    images = ArrayImages(pictures(6))
    extractor, network = made()
    found = collect(images, extractor, cache=cache)
    (path,) = files(cache)
    whole = path.read_bytes()
    harmed = harm(whole)
    assert harmed != whole
    path.write_bytes(harmed)
    network.seen = 0
    assert torch.equal(collect(images, extractor, cache=cache), found)
    assert network.seen == 6
    assert path.read_bytes() == whole
    assert files(cache) == [path]


def test_a_folder_in_the_place_of_the_file_costs_a_note(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, (extractor, _) = ArrayImages(pictures(6)), made()
    collect(images, extractor, cache=cache)
    (path,) = files(cache)
    path.unlink()
    path.mkdir()
    console.print_log()
    capsys.readouterr()
    assert collect(images, extractor, cache=cache).shape == (6, 5)
    assert capsys.readouterr().err.startswith("the features are not kept: cannot write")


def test_a_cache_that_cannot_be_written_costs_one_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    images, (extractor, _) = ArrayImages(pictures(6)), made()
    found = collect(images, extractor, cache=tmp_path / "file" / "cache")
    assert torch.equal(found, extractor.features(images.images))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "a part of the path is a file" in printed.err


def test_without_a_place_it_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.data.loading.default_cache_folder", lambda: tmp_path / "users")
    collect(ArrayImages(pictures(3)), made()[0])
    assert len(files(tmp_path / "users")) == 1


def test_packed_images_and_arrays_alike(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures(12))
    packed = data.load(tmp_path / "set.npz", cache=cache)
    extractor, network = made()
    found = collect(packed, extractor, cache=cache, batch=5)
    assert torch.equal(found, collect(ArrayImages(pictures(12)), extractor, cache=cache))
    network.seen = 0
    collect(data.load(tmp_path / "set.npz", cache=cache), extractor, cache=cache)
    assert network.seen == 0


def test_features_that_fail_leave_nothing_behind(cache: Path) -> None:
    extractor, network = made()
    network.forward = lambda images: torch.full((len(images), 5), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="the extractor means gives features that are not finite"):
        collect(ArrayImages(pictures(3)), extractor, cache=cache)
    assert not cache.exists()


def test_no_images_are_no_features(cache: Path) -> None:
    images, (extractor, _) = ArrayImages(pictures(3)), made()
    for _ in range(2):
        assert collect(images, extractor, indices=[], cache=cache).shape == (0, 5)


def test_what_cannot_be_asked_for(cache: Path) -> None:
    images, (extractor, _) = ArrayImages(pictures(3)), made()
    with pytest.raises(ConfigError, match="batch is 0"):
        collect(images, extractor, cache=cache, batch=0)
    for indices in ([0, 3], [-1]):
        with pytest.raises(IndexError, match=f"image {indices[-1]} of 3"):
            collect(images, extractor, indices=indices, cache=cache)
    with pytest.raises(DataError, match=r"indices are of shape \(1, 2\)"):
        collect(images, extractor, indices=np.zeros((1, 2), np.int64), cache=cache)


def test_an_array_of_images() -> None:
    pixels = pictures(5)
    images = ArrayImages(pixels)
    assert len(images) == 5
    assert np.array_equal(images.pixels([3, 0]), pixels[[3, 0]])
    assert images.fingerprint == ArrayImages(pixels.copy()).fingerprint
    assert images.fingerprint == ArrayImages(np.repeat(pixels, 2, axis=0)[::2]).fingerprint
    others = [pixels[::-1], pixels.reshape(5, 2, 8, 3), pixels[:4], pixels ^ 1]
    assert len({ArrayImages(other).fingerprint for other in (pixels, *others)}) == 5
    assert ArrayImages(pixels, fingerprint="mine").fingerprint == "mine"
    with pytest.raises(IndexError, match="image 5 of 5"):
        images.pixels([5])
    with pytest.raises(DataError, match="expected uint8"):
        ArrayImages(pixels.astype(np.float32))
