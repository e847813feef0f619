"""Settings: read back as written, every path changeable, and nothing hostile or mistyped gets in."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting_values import field_of, values_of

from smalti.config.autoencoder import ModernConfig, TransformConfig
from smalti.config.contrastive import ContrastiveConfig
from smalti.config.data import DataConfig
from smalti.config.gan import GANConfig
from smalti.config.kinds import KINDS
from smalti.config.optimizer import OptimizerConfig
from smalti.config.parse import from_plain, override, paths, read_toml, to_plain
from smalti.config.quantizer import (
    QUANTIZER_CONFIGS,
    ProductConfig,
    ScalarConfig,
    SimConfig,
)
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.errors import ConfigError, did_you_mean
from smalti.quantize import QUANTIZERS

RUNS = {
    "vqvae": RunConfig(),
    "gan": RunConfig(recipe="gan", model=GANConfig()),
    "contrastive": RunConfig(recipe="contrastive", model=ContrastiveConfig()),
    "modern": RunConfig(model=VQVAEConfig(ModernConfig(), ScalarConfig())),
    "transform": RunConfig(model=VQVAEConfig(TransformConfig(), ProductConfig(layer=SimConfig()))),
}
FREE = [(recipe, path) for recipe, run in RUNS.items() for path in paths(run) if path not in ("recipe", "preset")]


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    recipe = draw(st.sampled_from(list(RUNS)))
    chosen = draw(st.lists(st.sampled_from([path for kind, path in FREE if kind == recipe]), unique=True, max_size=6))
    wanted = {path: draw(values_of(RUNS[recipe], path)) for path in chosen}
    if any(path.endswith("optimizer.name") and value not in ("adam", "adamw") for path, value in wanted.items()):
        wanted.pop("model.anneal.beta2", None)  # which the other optimizers do not have
    if wanted.get("data.crop") is not None:
        wanted.pop("data.shift", None)  # windows move anyway
    return recipe, wanted


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@settings(max_examples=40)
@given(changes())
def test_what_is_set_is_there_and_comes_back_from_json(change: tuple[str, dict[str, Any]]) -> None:
    recipe, wanted = change
    run = override(RUNS[recipe], [f"{path}={as_text(value)}" for path, value in wanted.items()])
    assert paths(run) == paths(RUNS[recipe]) | wanted
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(run)))) == run


@settings(max_examples=40)
@given(changes())
def test_a_toml_file_sets_the_same(tmp_path: Path, change: tuple[str, dict[str, Any]]) -> None:
    recipe, wanted = change
    wanted = {path: value for path, value in wanted.items() if value is not None}  # TOML has no null
    lines = [f"{path} = {json.dumps(list(v) if isinstance(v, tuple) else v)}" for path, v in wanted.items()]
    file = tmp_path / "run.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert paths(override(RUNS[recipe], read_toml(file))) == paths(RUNS[recipe]) | wanted


@pytest.mark.parametrize(("recipe", "path"), FREE)
def test_every_path_can_be_changed(recipe: str, path: str) -> None:
    run = RUNS[recipe]
    current = paths(run)[path]
    choices = field_of(run, path).metadata.get("choices", ())
    special = {"data.split": "test", "data.size": (48, 64), "data.channels": 1, "data.source": "photos.zip",
               "data.targets": "clean.zip",
               "model.freeze_encoder_at": 5000, "data.crop": 64, "train.start_from": "0123abcd",
               "model.penalty.gradient": 10.0, "model.penalty.gamma": 0.5, "model.network.patch": 4,
               "model.anneal.beta2": 0.95,
               "model.autoencoder.stride": 8,
               "model.encoder.stride": 4, "model.encoder.width": 64, "model.encoder.heads": 2,
               "model.autoencoder.patch": 1, "model.quantizer.name": paths(run).get("model.quantizer.name"),
               "model.quantizer.projection": 8, "model.quantizer.levels": (7, 5),
               "model.quantizer.gradient": "rotation"}  # fmt: skip
    if path in special:
        value = special[path]
    elif choices:
        value = choices[-1]
    elif isinstance(current, bool):
        value = not current
    elif isinstance(current, float):
        value = 0.5
    else:
        value = current + 1
    assert paths(override(run, [f"{path}={as_text(value)}"])) == paths(run) | {path: value}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("train.images=3M", "train.images", 3_000_000),
        ("train.images=1.5k", "train.images", 1500),
        (" train.batch = 32 ", "train.batch", 32),
        ("data.flip=False", "data.flip", False),
        ("data.size=null", "data.size", None),
        ("data.size=[48, 64]", "data.size", (48, 64)),
        ("data.split=2024", "data.split", "2024"),
        ("data.split=true", "data.split", "true"),
        ("data.split=None", "data.split", None),
        ("data.source=a=b", "data.source", "a=b"),
        ("data.source=7", "data.source", "7"),
        ("model.loss_weight=1e-3", "model.loss_weight", 1e-3),
        ("model.loss_weight=2", "model.loss_weight", 2),
    ],
)
def test_values_are_read_as_people_write_them(assignment: str, path: str, value: Any) -> None:
    start = RunConfig(data=DataConfig(split="train", size=(8, 8)))
    assert paths(override(start, [assignment]))[path] == value


def test_a_later_assignment_wins() -> None:
    assert override(RunConfig(), ["train.batch=1", "train.batch=2"]).train.batch == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.batch", "has no '='; write it as train.batch=value"),
        ("train.btach=3", "there is no setting 'train.btach'; did you mean 'train.batch'?"),
        ("quantizer.codes=64", "did you mean 'model.quantizer.codes'?"),
        ("model.latent=5", "there is no setting 'model.latent'"),
        ("model=5", "there is no setting 'model'"),
        ("recipe=gan", "recipe cannot be set: it comes with the preset"),
        ("preset=dcgan", "preset cannot be set"),
        ("train.batch=0", "train.batch is 0, but must be from 1 to 1e+06"),
        ("train.batch=1.5", "train.batch is 1.5, but must be int"),
        ("train.batch=true", "train.batch is True, but must be int"),
        ("train.batch=lots", "train.batch is 'lots', but must be int"),
        ("train.batch=1.2.3k", "is not a number of images"),
        ("train.batch=null", "train.batch must be given"),
        ("data.flip=1", "data.flip is 1, but must be bool"),
        ("data.channels=2", "channels is 2, but must be 1 (grey), 3 (RGB) or 4 (RGBA)"),
        ("data.size=64", "data.size is 64, but must be tuple"),
        ("data.size=[64]", "must be tuple"),
        ("data.size=[[1],2]", "must be tuple"),
        ("data.size=[0, 4]", "data.size is 0, but must be from 1 to 16384"),
        ("data.resize=crp", "did you mean 'crop'? (one of cover, contain, stretch, crop)"),
        ("model.loss=mes", "did you mean 'mse'?"),
        ("model.optimizer.name=adma", "did you mean 'adam'?"),
        ("model.optimizer.beta1=1", "model.optimizer.beta1 is 1, but must be from 0 to 0.999999"),
        ("model.loss_weight=NaN", "model.loss_weight is nan, but must be from 0"),
        ("model.loss_weight=Infinity", "is inf, but must be from 0"),
        ("model.loss_weight=-1", "is -1, but must be from 0"),
        ("model.autoencoder.stride=3", "model.autoencoder.stride is 3, but must be a power of two: 2, 4, 8, 16 or 32"),
        ("model.autoencoder.stride=64", "must be from 2 to 32"),
        ("model.autoencoder.patch=4", "there is no setting 'model.autoencoder.patch'"),
        ("model.autoencoder.architecture=modren", "did you mean 'modern'? (one of residual, plain, modern, transform)"),
        ("model.perceptual.network=vgg", "model.perceptual.network is 'vgg'"),
        ("model.perceptual.weight=-1", "model.perceptual.weight is -1, but must be from 0"),
        ("model.adversary.inputs=maps", "(one of pixels, features)"),
        ("model.adversary.loss=wasserstein", "(one of hinge, bce, least-squares)"),
        ("model.adversary.optimizer.name=adma", "model.adversary.optimizer.name is 'adma': did you mean 'adam'?"),
        ("model.optimizer.schedule=linear", "(one of constant, cosine)"),
        ("model.optimizer.warm_up=-1", "model.optimizer.warm_up is -1, but must be from 0"),
        ("model.quantizer.codes=1", "model.quantizer.codes is 1, but must be from 2 to"),
        ("model.quantizer.codes=0", "model.quantizer.codes is 0, but must be from 2 to"),
        ("model.quantizer.name=scaler", "model.quantizer.name is 'scaler': did you mean 'scalar'? (one of vector, "),
        ("model.quantizer.name=", "(one of vector, simvq, scalar, binary, residual, product)"),
        ("model.quantizer.levels=[8, 8]", "there is no setting 'model.quantizer.levels'"),
        ("model.quantizer.layer.name=scalar", "there is no setting 'model.quantizer.layer.name'"),
        ("model.quantizer.gradient=diveq", "set update to gradient"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_a_remedy(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(RunConfig(), [assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["model.adversary.weight=1"], "perceptual.weight is 0; give it a weight, or let the adversary see 'pixels'"),
        (
            ["model.adversary.weight=1", "model.adversary.start=10", "model.perceptual.weight=1",
             "model.perceptual.start=11"],
            "adversary.start is 10, but with adversary.inputs='features' must be at least perceptual.start, 11",
        ),
    ],
)  # fmt: skip
def test_an_adversary_cannot_see_features_that_are_not_there(assignments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(RunConfig(), ["model.adversary.inputs=features", *assignments])
    override(RunConfig(), ["model.adversary.inputs=pixels", *assignments])


@pytest.mark.parametrize("kind", [ModernConfig, TransformConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 12}, "stride is 12, but must be a power of two"),
        ({"stride": 8, "patch": 3}, "patch is 3, but must be a power of two"),
        ({"stride": 4, "patch": 8}, "patch is 8, but cannot be larger than the stride, 4"),
        ({"width": 4}, "width is 4, but must be from 8"),
    ],
)
def test_a_grid_that_does_not_fit_is_named(kind: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        "text",
        nested(50_000),
        {"model": nested(50_000)},
        {"train": {"batch": nested(50_000)}},
        {"train": {"batch": "x" * 10**6}},
        {"train": {"batch": 10**4000}},
        {"x" * 10**5: 1},
        {"recipe": []},
        {"recipe": {}, "model": {}},
        {"recipe": None, "model": {}},
        {"recipe": "gna", "model": {}},
        {"recipe": "gan"},
        {"recipe": "gan", "model": {"loss_weight": 1}},
        {"recipe": "vqvae", "model": {"quantizer": {"codes": 2**40}}},
        {"model": {"quantizer": {"name": "vectro"}}},
        {"model": {"quantizer": {"name": ["vector"]}}},
        {"model": {"quantizer": {"name": "scalar", "codes": 3}}},
        {"model": {"quantizer": {"name": "scalar", "levels": [2] * 10**6}}},
        {"model": {"quantizer": {"name": "scalar", "levels": [256, 256, 256]}}},
        {"model": {"quantizer": {"name": "scalar", "levels": nested(50_000)}}},
        {"model": {"quantizer": {"name": "residual", "layer": {"name": "residual"}}}},
        {"model": {"quantizer": {"name": "residual", "layer": None}}},
        {"model": {"quantizer": "vector"}},
        {"model": {"quantizer": None}},
        {"model": {"autoencoder": {"architecture": "transfrom"}}},
        {"model": {"autoencoder": {"architecture": {}}}},
        {"model": {"autoencoder": {"architecture": "modern", "residual_width": 3}}},
        {"model": {"autoencoder": "modern"}},
        {"model": {"adversary": {"optimizer": {"name": 3}}}},
        {"model": {"perceptual": 1}},
        {"data": {"size": [1, 2, 3]}},
        {"data": {"size": {"height": 1}}},
        {"preset": 3},
    ],
    ids=range(35),
)
def test_a_hostile_table_is_one_config_error(plain: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain(RunConfig, plain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["[" * 50_000, "9" * 5000, '{"a":' * 20_000, "x" * 100_000])
def test_a_hostile_value_is_one_short_config_error(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(RunConfig(), [f"train.batch={value}"])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "content",
    [
        b"a = ",
        b"\xff\xfe",
        b"a = 1\na = 2",
        b"a = " + b"[" * 50_000,
        b"a = " + b"9" * 5000,
        b".".join([b"a"] * 5000) + b" = 1",
    ],
    ids=range(6),
)
def test_a_file_that_is_not_toml_is_one_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML") as caught:
        read_toml(file)
    assert "\n" not in str(caught.value)


def test_a_settings_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the settings"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read the settings"):
        read_toml(tmp_path)


@pytest.mark.parametrize(("kind", "wrong"), [("vqvae", GANConfig()), ("gan", VQVAEConfig())])
def test_a_recipe_takes_its_own_model_alone(kind: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=f"recipe '{kind}' needs a {KINDS[kind].settings.__name__}"):
        RunConfig(recipe=kind, model=wrong)


def test_settings_are_checked_when_they_are_made_and_cannot_be_changed() -> None:
    with pytest.raises(ConfigError, match="learning_rate is nan"):
        OptimizerConfig(learning_rate=math.nan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        OptimizerConfig().learning_rate = 1.0  # type: ignore[misc]


def test_every_quantizer_has_its_settings() -> None:
    assert list(QUANTIZER_CONFIGS) == list(QUANTIZERS)
    assert {name: kind().name for name, kind in QUANTIZER_CONFIGS.items()} == {name: name for name in QUANTIZERS}


def test_did_you_mean_lists_all_when_none_is_close() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", []) == "none is known here"
    assert did_you_mean("zzz", [f"name{number:02d}" for number in range(20)]).endswith("name11, ...")
