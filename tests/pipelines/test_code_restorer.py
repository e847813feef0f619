"""Restoring pictures with predicted codes: fidelity, tiles, windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import strong
from small_runs import pixels, small_config, small_data, tokenizer_for

import smalti
from smalti.checkpoint import file as checkpoint
from smalti.config.autoencoder import ModernConfig
from smalti.config.parse import override
from smalti.config.quantizer import VectorConfig
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.spec import ImageSpec
from smalti.errors import ConfigError
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.pipelines.code_restorer import CodeRestorer
from smalti.runtime.device import Machine
from smalti.training.loop import train


def modern_tokenizer(path: Path) -> Path:
    """A VQ-VAE that normalises over the picture."""
    model = VQVAEConfig(ModernConfig(width=16, blocks=1, stride=4, attention=True), VectorConfig(codes=8, dimension=4))
    torch.manual_seed(0)
    network = strong(Autoencoder(model, 3))
    checkpoint.write(
        path, network, checkpoint.Card("vqvae", RunConfig("vqvae", model), ImageSpec(3, 16, 16), (), 0, {})
    )
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CodeRestorer]:
    folder, found = tmp_path_factory.mktemp("code-restorers"), {}

    def get(kind: str, degradation: str = "noise(20)") -> CodeRestorer:
        if (kind, degradation) not in found:
            of = modern_tokenizer(folder / "modern.safetensors") if kind == "modern" else None
            config = small_config("restore-codes", "train.images=16", "model.fidelity_start=100")
            config = override(config, [f"model.degradation={degradation}"])
            run = folder / f"{kind}{len(found)}"
            train(
                config, small_data(folder), run, of=of or tokenizer_for("restore-codes", folder),
                machine=Machine("cpu", "float32"),
            )  # fmt: skip
            model = smalti.load(run)
            assert isinstance(model, CodeRestorer)
            torch.manual_seed(0)
            strong(model._codes.predictor)
            found[kind, degradation] = model
        return found[kind, degradation]

    return get


def test_fidelity_is_chosen_for_each_picture(trained: Callable[..., CodeRestorer]) -> None:
    model, image = trained("classic"), pixels(1, side=21)[0][:13]
    codes_alone, half, near = (model.restore(image, fidelity=fidelity) for fidelity in (0, 0.5, 1))
    assert codes_alone.shape == image.shape
    assert not np.array_equal(codes_alone, near)
    assert np.array_equal(half, model.restore(image)), "a half where none is given"
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    by_hand = model._codes(tensor, fidelity=1.0)[0].permute(1, 2, 0).clamp(-1, 1)
    assert np.abs((by_hand.numpy() + 1) * 127.5 - near).max() <= 0.51


@pytest.mark.parametrize("fidelity", [-0.1, 1.5, float("nan")])
def test_fidelity_out_of_range_is_refused(trained: Callable[..., CodeRestorer], fidelity: float) -> None:
    with pytest.raises(ConfigError, match="but must be from 0 to 1"):
        trained("classic").restore(pixels(1)[0], fidelity=fidelity)


@pytest.mark.parametrize("degradation", ["noise(20)", "down(2)"])
def test_tiles_give_the_whole_picture(trained: Callable[..., CodeRestorer], degradation: str) -> None:
    model = trained("classic", degradation)
    assert not model.blends
    image = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)
    whole = model.restore(image, fidelity=1, tile=512)
    assert whole.shape == (90 * model.scale, 131 * model.scale, 3)
    assert np.abs(whole.astype(int) - model.restore(image, fidelity=1, tile=32)).max() <= 1


def test_windows_are_blended_where_the_picture_is_seen_whole(trained: Callable[..., CodeRestorer]) -> None:
    model, image = trained("modern"), np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8)
    assert model.blends
    found = model.restore(image)
    assert np.array_equal(found, model.restore(image, tile=16)), "windows of the size of the training"
    whole = model.restore(image, tile=64)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    by_hand = (model._codes(tensor, fidelity=0.5)[0].permute(1, 2, 0).clamp(-1, 1).numpy() + 1) * 127.5
    assert np.abs(by_hand - whole).max() <= 0.51
    assert not np.array_equal(found, whole)
    assert model.restore(pixels(1, side=7)[0]).shape == (7, 7, 3)


def test_other_restorers_have_no_fidelity(tmp_path: Path) -> None:
    train(small_config("denoise", "train.images=8"), small_data(tmp_path), tmp_path / "run")
    model = smalti.load(tmp_path / "run")
    with pytest.raises(ConfigError, match="has no fidelity to choose"):
        model.restore(pixels(1)[0], fidelity=0.5)
