"""The registry of kinds: a kind from outside is trained, saved, resumed, loaded and used like any other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smalti
from smalti.checkpoint import file as checkpoint
from smalti.config.fields import ValidatedConfig, number
from smalti.config.kinds import KINDS, ModelKind, kind_named
from smalti.config.optimizer import OptimizerConfig
from smalti.config.parse import from_plain, override, to_plain
from smalti.config.run import LoopConfig, RunConfig
from smalti.data.order import Shuffled
from smalti.data.spec import AudioSpec
from smalti.errors import CheckpointError, ConfigError
from smalti.pipelines.base import Pipeline
from smalti.recipes.base import Recipe, Score, TrainingContext, initial_weights
from smalti.runtime.device import Machine

SAMPLES = 64
MACHINE = Machine("cpu", "float32")


@dataclass(frozen=True)
class DenoiserConfig(ValidatedConfig):
    """Settings of the toy kind: a filter that removes noise from waveforms."""

    taps: int = number(9, 1, 999)
    noise_std: float = number(0.3, 0.0, 10.0)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.02)


class Waveforms(Shuffled):
    """Sine waves of random pitch: a dataset of a kind that smalti does not know."""

    source, split, classes, provenance = "sines", None, (), {"pitches": "random"}
    spec = AudioSpec(channels=1, samples=SAMPLES, sample_rate_hz=8000)

    def __init__(self, count: int = 40, seed: int = 0) -> None:
        super().__init__()
        pitch = np.random.default_rng(seed).uniform(1, 6, (count, 1, 1))
        self.waves = np.sin(2 * np.pi * pitch * np.arange(SAMPLES) / SAMPLES).astype(np.float32)
        self.fingerprint = hashlib.sha256(self.waves.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.waves)

    def batch(self, seed: int, images_seen: int, count: int) -> np.ndarray:
        return self.take(self.indices(seed, images_seen, count))

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.waves[indices]


class Filter(nn.Module):
    def __init__(self, taps: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 1, taps, padding="same", bias=False)

    def forward(self, waves: Tensor) -> Tensor:
        found: Tensor = self.convolution(waves)
        return found


class DenoiserRecipe(Recipe[Tensor]):
    kind = "denoiser"
    data = AudioSpec
    headline = ("loss",)

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(DenoiserConfig, config.model)
        with initial_weights(config.train.seed):
            network = Filter(self.model.taps)
        self.network = self.add_module("network", network)
        self.add_optimizer("network", network, self.model.optimizer)
        self.add_average("network")

    def to_device(self, batch: np.ndarray) -> Tensor:
        return torch.from_numpy(batch).to(self.context.device)

    def step(self, batch: Tensor, images_seen: int) -> dict[str, Tensor]:
        noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(images_seen))
        loss = (self.network(batch + self.model.noise_std * noise) - batch).square().mean()
        self.descend("network", loss, images_seen)
        self.update_averages(images_seen)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def score(self, batches: Iterable[Tensor]) -> Score:
        errors = [float((self.export()(batch) - batch).square().mean()) for batch in batches]
        return Score("error", sum(errors) / len(errors), larger_is_better=False)

    def export(self) -> nn.Module:
        return self.averages["network"].module


def build_denoiser(config: DenoiserConfig, spec: AudioSpec, classes: int, tokenizer: nn.Module | None) -> nn.Module:
    return Filter(config.taps)


class Denoiser(Pipeline):
    missing: ClassVar[str] = "removes no noise; give a denoiser"

    @torch.no_grad()
    def denoise(self, waves: np.ndarray) -> np.ndarray:
        return self.module(torch.from_numpy(waves)).numpy()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row, and the kind exists."""
    row = ModelKind(DenoiserConfig, DenoiserRecipe, build_denoiser, Denoiser, data="waveforms")
    monkeypatch.setitem(KINDS, "denoiser", row)


def config(images: int) -> RunConfig:
    loop = LoopConfig(images=images, batch=8, log_every=16, preview_every=32, save_every=32, ema_half_life=100)
    return RunConfig("denoiser", DenoiserConfig(), train=loop)


def weights(path: Path) -> dict[str, Tensor]:
    return checkpoint.read(path)[0].state_dict()


@pytest.mark.usefixtures("registered")
def test_a_kind_from_outside_trains_saves_resumes_loads_and_is_used(tmp_path: Path) -> None:
    data, held_out = Waveforms(), Waveforms(16, seed=1)
    whole = smalti.train(config(160), data, tmp_path / "whole", held_out=held_out, machine=MACHINE)
    smalti.train(config(64), data, tmp_path / "parts", held_out=held_out, machine=MACHINE)
    parts = smalti.train(config(160), data, tmp_path / "parts", held_out=held_out, machine=MACHINE)
    assert whole.images_seen == parts.images_seen == 160
    for name, tensor in weights(tmp_path / "whole" / "last.safetensors").items():
        assert torch.equal(tensor, weights(tmp_path / "parts" / "last.safetensors")[name])

    model = smalti.load(tmp_path / "whole")
    assert isinstance(model, Denoiser)
    assert model.card.spec == data.spec
    assert model.card.data["pitches"] == "random"
    assert model.card.score["name"] == "error"
    noisy = held_out.waves + 0.3 * np.random.default_rng(2).standard_normal(held_out.waves.shape).astype(np.float32)
    error = np.square(model.denoise(noisy) - held_out.waves).mean()
    untrained = np.square(build_denoiser(DenoiserConfig(), data.spec, 0, None)(torch.from_numpy(noisy)).detach().numpy()
                          - held_out.waves).mean()  # fmt: skip
    assert error < untrained
    copy = Denoiser.from_pretrained(model.save_pretrained(tmp_path / "copy.safetensors"))
    assert np.array_equal(copy.denoise(noisy), model.denoise(noisy))
    assert copy.card == model.card


@pytest.mark.usefixtures("registered")
def test_settings_of_a_kind_from_outside_are_read_and_changed_like_any() -> None:
    changed = override(config(64), ["model.taps=5", "model.optimizer.learning_rate=0.1"])
    assert (changed.model.taps, changed.model.optimizer.learning_rate) == (5, 0.1)
    assert from_plain(RunConfig, to_plain(changed)) == changed
    with pytest.raises(ConfigError, match=r"model\.taps is 0, but must be from 1 to 999"):
        override(config(64), ["model.taps=0"])


@pytest.mark.usefixtures("registered")
def test_other_data_than_the_kind_learns_is_refused(tmp_path: Path) -> None:
    from small_runs import small_config, small_data

    with pytest.raises(ConfigError, match="holds images, but the recipe denoiser learns audio"):
        smalti.train(config(64), small_data(tmp_path), tmp_path / "run")
    with pytest.raises(ConfigError, match="sines holds audio, but the recipe vqvae learns images"):
        smalti.train(small_config("vqvae"), Waveforms(), tmp_path / "run")


def test_a_file_of_a_kind_that_is_not_registered_says_which_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "denoiser", ModelKind(DenoiserConfig, DenoiserRecipe, build_denoiser, Denoiser))
        smalti.train(config(16), Waveforms(), tmp_path / "run", machine=MACHINE)
    with pytest.raises(
        CheckpointError, match=r"there is no recipe 'denoiser'; known: codec, context, contrastive, gan, prior"
    ):
        smalti.load(tmp_path / "run")


@pytest.mark.parametrize("name", list(KINDS))
def test_every_row_names_what_is_there(name: str) -> None:
    kind = kind_named(name)
    assert issubclass(kind.load_recipe(), Recipe)
    assert kind.load_recipe().kind == name
    assert issubclass(kind.load_pipeline(), Pipeline)
    assert callable(kind.load_build())
    assert kind.tokenizer is None or kind.tokenizer in KINDS
    assert dataclasses.is_dataclass(kind.settings)
    assert isinstance(kind.settings(), ValidatedConfig)


@pytest.mark.parametrize(
    ("name", "said"), [("gna", "did you mean 'gan'"), ("", "known: "), (7, "there is no recipe 7")]
)
def test_an_unknown_kind(name: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind_named(name)
