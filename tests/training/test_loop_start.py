"""What a training does before its first step, and the advice that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import small_config, small_data
from watchers import Watcher

from smalti.checkpoint.run_dir import RunFolder
from smalti.config.parse import override
from smalti.data import PackedImages, load
from smalti.errors import ConfigError
from smalti.quantize import VectorQuantizer
from smalti.recipes.gan import GANRecipe
from smalti.runtime.device import Machine
from smalti.training.loop import train

FLOAT32 = Machine(device="cpu", precision="float32")


@pytest.mark.parametrize("name", ["vqvae-best", "dcgan"])
def test_a_new_run_is_started_and_a_resumed_one_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_config(name).kind.load_recipe()
    start, found = recipe.start, []

    def watched(self: Any, batches: Any) -> None:
        found.append([torch.cat([batch.pixels for batch in batches()]) for _ in range(2)])
        start(self, batches)

    monkeypatch.setattr(recipe, "start", watched)
    data, config = small_data(tmp_path), small_config(name)
    train(config, data, tmp_path / "run", machine=FLOAT32)
    train(override(config, ["train.images=96"]), data, tmp_path / "run", machine=FLOAT32)
    ((first, second),) = found
    shifts = (2 * config.data.shift + 1) ** 2
    assert len(first) == 80 * shifts, "each of the images, and as it is in a mirror, wherever it can be moved to"
    assert torch.equal(first, second)


def test_a_run_begins_with_the_best_linear_codec(tmp_path: Path) -> None:
    config = small_config("vqvae-best", "train.images=8")
    watcher = Watcher(lambda _: None)
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    fresh = small_config("vqvae", "train.images=8")
    other = Watcher(lambda _: None)
    train(fresh, small_data(tmp_path), tmp_path / "other", machine=FLOAT32, reporter=other)
    assert watcher.records[0]["psnr"] > other.records[0]["psnr"] + 5


def test_too_few_images_for_the_codes_are_named(tmp_path: Path) -> None:
    config = small_config("vqvae-best", "model.quantizer.layer.codes=512", "data.shift=0")
    with pytest.raises(ConfigError, match="the training images have 320, the codebook 512; use more or larger images"):
        train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32)


def flat_data(folder: Path) -> PackedImages:
    """Images that are all alike."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "flat.npz", images=np.full((20, 16, 16, 3), 99, np.uint8))
    return load(folder / "flat.npz", cache=folder / "cache")


def advice_of(folder: Path) -> list[dict[str, Any]]:
    return [record for record in RunFolder(folder).records() if record.get("event") == "advice"]


def test_a_collapsed_codebook_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.recipes.vqvae.FIRST_ADVICE", 32)
    # The nearest code follows the latents, which are all alike; the others stay where they were drawn.
    monkeypatch.setattr(VectorQuantizer, "_start", lambda *_: None)
    one_place = ("model.autoencoder.stride=16", "model.quantizer.codes=4", "model.quantizer.dead_code_threshold=0")
    config = small_config("vqvae", *one_place, "train.images=160")
    watcher = Watcher()
    train(config, flat_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    (record,) = advice_of(tmp_path / "run")
    assert record["images_seen"] == 96, "by then there were twenty latents for each of the four codes"
    assert record["advice"].startswith("the codebook has collapsed: 1.0 of 4 codes")
    assert watcher.messages == [f"at 96 images: {record['advice']}"]


def test_other_advice_is_told_too_and_the_same_with_other_figures_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter([None, "it is slow: 3 s", "it is slow: 4 s", None, "it is loud: 9 dB", "it is slow: 5 s"])
    monkeypatch.setattr(GANRecipe, "advice", lambda *_: next(lines))
    watcher = Watcher()
    config = small_config("dcgan", "train.images=96")
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32, reporter=watcher)
    assert [(r["images_seen"], r["advice"]) for r in advice_of(tmp_path / "run")] == [
        (32, "it is slow: 3 s"), (80, "it is loud: 9 dB")
    ]  # fmt: skip
    assert watcher.messages == ["at 32 images: it is slow: 3 s", "at 80 images: it is loud: 9 dB"]


@pytest.mark.parametrize(
    "changes",
    [(), ("model.quantizer.normalize=true",), ("model.quantizer.name=scalar",), ("model.quantizer.name=binary",)],
)
def test_a_young_or_a_healthy_codebook_is_left_alone(
    changes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vqvae" if len(changes) == 0 or "name" not in changes[0] else "fsq"
    assignments = ["train.images=96", "model.optimizer.learning_rate=1e-6", *changes]
    if "model.quantizer.name=scalar" in changes:
        assignments += ["model.quantizer.levels=[2, 2]"]
    if "model.quantizer.name=binary" in changes:
        assignments += ["model.quantizer.bits=2", "model.quantizer.entropy=0"]
    config = small_config(name, *assignments)
    train(config, small_data(tmp_path), tmp_path / "young", machine=FLOAT32)
    assert not advice_of(tmp_path / "young")
    monkeypatch.setattr("smalti.recipes.vqvae.FIRST_ADVICE", 0)
    train(config, small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    assert not any("latents" in record["advice"] for record in advice_of(tmp_path / "run"))
