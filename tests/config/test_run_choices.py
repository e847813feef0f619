"""Settings that choose what a table is: quantizers, architectures, optimizers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from setting_values import field_of

from smalti.config.autoencoder import AutoencoderConfig, ClassicConfig, ModernConfig, TransformConfig
from smalti.config.fields import ValidatedConfig
from smalti.config.gan import GANConfig
from smalti.config.kinds import KINDS
from smalti.config.optimizer import OptimizerConfig
from smalti.config.parse import from_plain, override, read_toml, to_plain
from smalti.config.quantizer import (
    QUANTIZER_CONFIGS,
    BinaryConfig,
    ProductConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)
from smalti.config.run import RunConfig
from smalti.config.vqvae import PerceptualConfig, VQVAEConfig
from smalti.losses.adversarial import ADVERSARIAL_LOSSES
from smalti.losses.reconstruction import RECONSTRUCTION_LOSSES
from smalti.models.autoencoder.autoencoder import ARCHITECTURES
from smalti.optim.build import OPTIMIZERS


def quantizer_of(*assignments: str, start: RunConfig | None = None) -> Any:
    run = override(start or RunConfig(), assignments)
    assert isinstance(run.model, VQVAEConfig)
    return run.model.quantizer


@pytest.mark.parametrize("kind", QUANTIZER_CONFIGS.values())
def test_a_quantizer_is_chosen_by_its_name(kind: type) -> None:
    assert quantizer_of(f"model.quantizer.name={kind.name}") == kind()
    assert from_plain(RunConfig, {"model": {"quantizer": {"name": kind.name}}}).model.quantizer == kind()
    run = RunConfig(model=VQVAEConfig(quantizer=kind()))
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(run)))) == run


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_comes_first_wherever_it_stands(order: int) -> None:
    words = ["model.quantizer.name=scalar", "model.quantizer.levels=[8, 6, 5]"]
    assert quantizer_of(*words[::order]) == ScalarConfig(levels=(8, 6, 5))
    words = [
        "model.quantizer.name=residual",
        "model.quantizer.depth=3",
        "model.quantizer.layer.name=binary",
        "model.quantizer.layer.bits=5",
        "model.quantizer.layer.spherical=false",
    ]
    expected = ResidualConfig(layer=BinaryConfig(bits=5, spherical=False), depth=3)
    assert quantizer_of(*words[::order]) == expected


def test_the_name_a_table_has_already_keeps_its_settings() -> None:
    start = RunConfig(model=VQVAEConfig(quantizer=SimConfig(codes=99)))
    assert quantizer_of("model.quantizer.name=simvq", "model.quantizer.dimension=3", start=start) == SimConfig(
        codes=99, dimension=3
    )
    assert quantizer_of("model.quantizer.name=scalar", "model.quantizer.name=simvq", start=start) == SimConfig(codes=99)
    assert quantizer_of("model.quantizer.name=simvq", "model.quantizer.name=vector", start=start) == VectorConfig()
    assert quantizer_of("model.quantizer.name=product", start=start) == ProductConfig()


def test_a_settings_file_may_name_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model.quantizer]\nlevels = [7, 5]\nname = "scalar"\n', encoding="utf-8")
    assert quantizer_of(*read_toml(file)) == ScalarConfig(levels=(7, 5))


def test_every_architecture_has_its_settings_and_networks() -> None:
    words = [
        word for kind in get_args(AutoencoderConfig) for word in field_of(kind(), "architecture").metadata["choices"]
    ]
    assert words == list(ARCHITECTURES)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("residual", ClassicConfig()),
        ("plain", ClassicConfig("plain")),
        ("modern", ModernConfig()),
        ("transform", TransformConfig()),
    ],
)
def test_an_autoencoder_is_chosen_by_its_architecture(word: str, expected: Any) -> None:
    assert autoencoder_of(f"model.autoencoder.architecture={word}") == expected
    plain = {"model": {"autoencoder": {"architecture": word}}}
    assert from_plain(RunConfig, plain).model == VQVAEConfig(expected)
    run = RunConfig(model=VQVAEConfig(expected))
    assert from_plain(RunConfig, json.loads(json.dumps(to_plain(run)))) == run
    # Another kind begins with its own defaults, the same kind keeps what was set.
    start = RunConfig(model=VQVAEConfig(ClassicConfig(width=99)))
    found = autoencoder_of(f"model.autoencoder.architecture={word}", start=start)
    assert found == (dataclasses.replace(expected, width=99) if isinstance(expected, ClassicConfig) else expected)


def autoencoder_of(*assignments: str, start: RunConfig | None = None) -> Any:
    run = override(start or RunConfig(), assignments)
    assert isinstance(run.model, VQVAEConfig)
    return run.model.autoencoder


def test_an_architecture_and_its_settings_in_any_order() -> None:
    words = ["model.autoencoder.patch=8", "model.autoencoder.architecture=transform", "model.autoencoder.stride=16"]
    for order in (words, words[::-1]):
        assert autoencoder_of(*order) == TransformConfig(stride=16, patch=8)


def test_the_architecture_written_before_there_were_others_means_the_same() -> None:
    old = {"width": 64, "residual_width": 16, "residual_blocks": 1, "stride": 8}
    expected = ClassicConfig(width=64, residual_width=16, residual_blocks=1, stride=8)
    assert from_plain(RunConfig, {"model": {"autoencoder": {"architecture": "residual"} | old}}).model == (
        VQVAEConfig(expected)
    )
    assert from_plain(RunConfig, {"model": {"autoencoder": old}}).model == VQVAEConfig(expected)


def test_the_name_of_an_optimizer_is_a_plain_word() -> None:
    run = override(RunConfig(), ["model.optimizer.name=sgd"])
    assert run.model.optimizer == OptimizerConfig("sgd")


def test_a_quantizer_written_before_there_were_others_means_the_same() -> None:
    old = {"name": "vector", "codes": 64, "dimension": 8, "update": "gradient", "commitment": 0.5, "decay": 0.9,
           "dead_code_threshold": 0.0}  # fmt: skip
    expected = VectorConfig(
        codes=64, dimension=8, update="gradient", commitment=0.5, decay=0.9, dead_code_threshold=0.0
    )
    assert from_plain(RunConfig, {"model": {"quantizer": old}}).model.quantizer == expected
    assert from_plain(RunConfig, {"model": {"quantizer": {"codes": 64}}}).model.quantizer == VectorConfig(codes=64)
    assert (expected.projection, expected.normalize, expected.start, expected.gradient) == (
        None, False, "latents", "straight-through"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "dimension", "codebook_sizes"),
    [
        (VectorConfig(codes=9, dimension=5, projection=2), 5, (9,)),
        (SimConfig(codes=9, dimension=5), 5, (9,)),
        (ScalarConfig(levels=(8, 6, 5)), 3, (240,)),
        (BinaryConfig(bits=9), 9, (512,)),
        (ResidualConfig(layer=ScalarConfig(levels=(5, 3)), depth=3), 2, (15, 15, 15)),
        (ProductConfig(layer=BinaryConfig(bits=4), groups=2), 8, (16, 16)),
    ],
)
def test_dimension_and_alphabet_follow_from_the_settings(config: Any, dimension: int, codebook_sizes: Any) -> None:
    assert (config.dimension, config.codebook_sizes) == (dimension, codebook_sizes)


@pytest.mark.parametrize(
    ("kind", "name", "table"),
    [
        (OptimizerConfig, "name", OPTIMIZERS),
        (GANConfig, "loss", ADVERSARIAL_LOSSES),
        (VQVAEConfig, "loss", RECONSTRUCTION_LOSSES),
        (PerceptualConfig, "network", {"smalti-vit": ..., "efficientnet-lite0": ...}),
    ],
)
def test_what_may_be_chosen_is_what_the_table_holds(kind: Any, name: str, table: dict[str, Any]) -> None:
    entry = next(entry for entry in dataclasses.fields(kind) if entry.name == name)
    assert set(entry.metadata["choices"]) == set(table)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in sorted(ValidatedConfig.__subclasses__(), key=lambda kind: kind.__name__)
        if any("choices" in entry.metadata for entry in dataclasses.fields(kind))
    ],
)
def test_every_choice_is_accepted(kind: Any) -> None:
    for entry in dataclasses.fields(kind):
        for word in entry.metadata.get("choices", ()):
            needed: dict[str, Any] = {"update": "gradient"} if word == "diveq" else {}
            if kind is RunConfig:
                needed = {"model": KINDS[word].settings()}
            assert getattr(kind(**{entry.name: word} | needed), entry.name) == word
