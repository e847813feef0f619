"""The FID Inception network against an independently written graph, and verification of its weights file."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import inception_reference as reference
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import CheckpointError, ConfigError, DataError, OutputError
from smalti.features import inception
from smalti.features.extractor import extractor

# Height, width and channels of each stage, from table 1 of the paper and TensorFlow's graph.
STAGES = {
    "pool1": (64, 73),
    "pool2": (192, 35),
    "Mixed_5b": (256, 35),
    "Mixed_5c": (288, 35),
    "Mixed_5d": (288, 35),
    "Mixed_6a": (768, 17),
    "Mixed_6b": (768, 17),
    "Mixed_6c": (768, 17),
    "Mixed_6d": (768, 17),
    "Mixed_6e": (768, 17),
    "Mixed_7a": (1280, 8),
    "Mixed_7b": (2048, 8),
    "Mixed_7c": (2048, 8),
}


@functools.cache
def weights() -> dict[str, Tensor]:
    return reference.random_weights(3)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A weights file like the published one, in the legacy torch format, and its checksum."""
    path = tmp_path_factory.mktemp("weights") / inception.FILE
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_it_equals_a_graph_written_independently() -> None:
    network = inception.build(weights())
    images = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = reference.run(weights(), images)
    seen = {}
    for name, values in network.stages(images):
        close(values, expected[name])
        seen[name] = (values.shape[1], values.shape[2])
        assert values.shape[2] == values.shape[3]
    assert seen == STAGES
    features = values.mean(dim=(2, 3))
    close(features, expected["pool3"])
    assert features.std() > 1e-2  # the activations have not vanished
    close(network.logits(features), expected["logits"])
    assert network.logits(features).shape == (1, 1008)


def test_its_parameters_are_those_of_the_port() -> None:
    with torch.device("meta"):
        state = inception.FidInception().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: tuple(value.shape) for name, value in weights().items()
    }
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    parameters = sum(value.numel() for name, value in state.items() if "running" not in name and "num_" not in name)
    assert parameters == 21_785_568 + 1008 * (2048 + 1)  # Inception v3 without its classifiers, and the last layer


def test_zeros_around_an_image_do_not_count() -> None:
    ones = torch.ones(1, 2, 5, 5)
    assert torch.equal(inception.average_pool(ones), ones)
    counted = F.avg_pool2d(ones, 3, stride=1, padding=1)
    assert counted[0, 0, 0, 0] == pytest.approx(4 / 9)
    negative = -1 - torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert (inception.maximum_pool(negative) < -0.99).all()
    assert inception.maximum_pool(negative)[0, 0, 0, 0] == negative[0, 0, :2, :2].max()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "channels", "pool"),
    [("Mixed_5b", 192, "mean"), ("Mixed_6b", 768, "mean"), ("Mixed_7b", 1280, "mean"), ("Mixed_7c", 2048, "max")],
)
def test_the_edge_shows_which_pool_a_block_has(name: str, channels: int, pool: str) -> None:
    network = inception.build(weights())
    block = network.get_submodule(name)
    values = torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(1))
    outside = block.branch_pool.conv.out_channels
    found = block(values)[:, -outside:]
    inside = slice(1, -1)
    padded = F.avg_pool2d(values, 3, stride=1, padding=1)  # includes the padding
    if pool == "mean":
        usual = block.branch_pool(padded)
        close(found[..., inside, inside], usual[..., inside, inside])
        assert not torch.allclose(found[..., 0, :], usual[..., 0, :], atol=1e-3)
    else:
        close(found, block.branch_pool(F.max_pool2d(values, 3, stride=1, padding=1)))
        assert not torch.allclose(found[..., inside, inside], block.branch_pool(padded)[..., inside, inside], atol=1e-3)


def test_the_pinned_checksum_is_the_one_in_the_name() -> None:
    assert len(inception.SHA256) == 64
    assert inception.FILE.removesuffix(".pth").endswith(inception.SHA256[:8])
    assert inception.URL.endswith(inception.FILE)


def test_an_extractor_from_the_file(file: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "read_weights", functools.partial(inception.read_weights, sha256=file[1]))
    made = extractor("inception", weights=file[0])
    assert (made.dimension, made.classes) == (2048, 1008)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128
    expected = reference.run(weights(), images)
    features = made.features(pixels)
    assert (features - expected["pool3"]).abs().max() <= 1e-4 * expected["pool3"].abs().max()  # BN is folded in
    assert torch.allclose(made.probabilities(features), expected["logits"].softmax(1), rtol=1e-3, atol=1e-6)
    assert made.record()["range"] == "(x - 128) / 128 for x in 0..255"
    assert "without its bias" in made.record()["classifier"]
    with pytest.raises(ConfigError, match="defined at 299 pixels, not 224"):
        extractor("inception", weights=file[0], size=224)


def test_another_file_is_one_clear_line(tmp_path: Path, file: tuple[Path, str]) -> None:
    with pytest.raises(CheckpointError, match=rf"has SHA-256 {file[1][:16]}, expected 6726825d0af5f729; it was cut"):
        extractor("inception", weights=file[0])
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file[0].read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="has SHA-256"):
        inception.read_weights(cut)
    with pytest.raises(CheckpointError, match="cannot be read"):
        inception.read_weights(cut, sha256=hashlib.sha256(cut.read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match=r"cannot read .*directory"):
        inception.read_weights(tmp_path)


def test_weights_that_do_not_fit_are_one_clear_line() -> None:
    fewer = {name: value for name, value in weights().items() if name != "fc.bias"}
    with pytest.raises(CheckpointError, match=r"do not fit the extractor inception .*fc\.bias"):
        inception.build(fewer)
    with pytest.raises(CheckpointError, match="do not fit"):
        inception.build(weights() | {"fc.bias": torch.zeros(1000)})


def test_missing_weights_say_what_to_get_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        extractor("inception", cache=cache)
    said = str(caught.value)
    for part in (
        inception.FILE,
        inception.URL,
        str(cache / "weights" / inception.FILE),
        "`weights`",
        "`download`",
    ):
        assert part in said
    assert "\n" not in said
    with pytest.raises(ConfigError, match=r"there is no .*nowhere\.pth; give the path of pt_inception"):
        extractor("inception", weights=cache / "nowhere.pth", download=True)
    assert not cache.exists()


def test_weights_are_downloaded_when_that_is_asked_for(tmp_path: Path, cache: Path) -> None:
    served = tmp_path / "served.bin"
    served.write_bytes(b"weights" * 1000)
    right = hashlib.sha256(served.read_bytes()).hexdigest()
    ask = functools.partial(inception.find_weights, None, cache=cache, download=True, url=served.as_uri())
    with pytest.raises(CheckpointError, match=r"came with SHA-256 .*, expected 6726825d0af5f729; try again"):
        ask()
    assert not list((cache / "weights").iterdir())
    place = ask(sha256=right)
    assert place == cache / "weights" / inception.FILE
    assert place.read_bytes() == served.read_bytes()
    assert ask(url="file:///nowhere") == place  # already downloaded
    assert [item.name for item in place.parent.iterdir()] == [inception.FILE]


def test_a_download_that_fails_is_one_clear_line(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = functools.partial(inception.find_weights, None, download=True)
    with pytest.raises(DataError, match=r"cannot download file:///nowhere.* elsewhere and put it at"):
        ask(cache=cache, url="file:///nowhere")
    served = tmp_path / "served.bin"
    served.write_bytes(bytes(100))
    monkeypatch.setattr(inception, "_DOWNLOAD_LIMIT", 99)
    with pytest.raises(DataError, match="sends more than 99 bytes"):
        ask(cache=cache, url=served.as_uri())
    with pytest.raises(OutputError, match="cannot write"):
        ask(cache=served, url=served.as_uri())
