"""Values that are not finite: named, stopped at, rolled back from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config, small_data
from watchers import Watcher

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.errors import TrainingError
from smalti.pipelines import base as api
from smalti.recipes import Images
from smalti.recipes.gan import GANRecipe
from smalti.recipes.vqvae import VQVAERecipe
from smalti.runtime.device import Machine
from smalti.training.loop import train

FLOAT32 = Machine(device="cpu", precision="float32")


def explode(monkeypatch: pytest.MonkeyPatch, *, at: int, times: int = 10**9) -> None:
    """Let the VQ-VAE see one infinite pixel in the step at `at` images."""
    recipe, left = VQVAERecipe, [times]
    step = recipe.step

    def poisoned(self: Any, batch: Images, images_seen: int) -> Any:
        if images_seen == at and left[0] > 0:
            left[0] -= 1
            batch.pixels[0, 0, 0, 0] = torch.inf
        return step(self, batch, images_seen)

    monkeypatch.setattr(recipe, "step", poisoned)


def test_a_nan_stops_with_step_term_and_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explode(monkeypatch, at=40)
    with pytest.raises(TrainingError) as caught:
        train(small_config("vqvae"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    message = str(caught.value)
    assert message.startswith("loss became ")
    assert "in step 5, at 40 images" in message
    assert f"{tmp_path / 'run' / 'last.safetensors'}, at 32 images" in message
    assert "`on_nan=rollback`" in message
    weights = api.load(tmp_path / "run").module.state_dict().values()
    assert all(tensor.isfinite().all() for tensor in weights)
    assert RunFolder(tmp_path / "run").records()[-1]["event"] == "diverged"


def test_a_nan_before_the_first_save_leaves_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explode(monkeypatch, at=0)
    with pytest.raises(TrainingError, match="at 0 images"):
        train(small_config("vqvae"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    assert api.load(tmp_path / "run").card.images_seen == 0


def test_rollback_goes_back_and_on_with_halved_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explode(monkeypatch, at=40, times=2)
    data, watcher = small_data(tmp_path), Watcher()
    config = small_config("vqvae")
    result = train(config, data, tmp_path / "run", machine=FLOAT32, on_nan="rollback", reporter=watcher)
    assert result.reason == "finished"
    events = [r.get("event") for r in RunFolder(tmp_path / "run").records()]
    assert events.count("rollback") == 2
    assert "back to 32 images" in watcher.messages[0]
    state = checkpoint.load_state(tmp_path / "run" / "resume.pt", torch.device("cpu"))
    rate = state["recipe"]["optimizers"]["autoencoder"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(config.model.optimizer.learning_rate / 4)  # type: ignore[union-attr]


def test_rollback_gives_up_after_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explode(monkeypatch, at=40)
    with pytest.raises(TrainingError, match="5 rollbacks did not help"):
        train(small_config("vqvae"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32, on_nan="rollback")


def test_infinite_weights_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = GANRecipe
    step = recipe.step

    def poisoned(self: Any, batch: Images, images_seen: int) -> Any:
        terms = step(self, batch, images_seen)
        if images_seen == 56:  # the last step: no later loss would show it
            next(self.modules["generator"].parameters()).data.fill_(torch.nan)
        return terms

    monkeypatch.setattr(recipe, "step", poisoned)
    with pytest.raises(TrainingError, match="the weights became infinite by 64 images"):
        train(small_config("dcgan"), small_data(tmp_path), tmp_path / "run", machine=FLOAT32)
    assert api.load(tmp_path / "run").card.images_seen == 32
