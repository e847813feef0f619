"""Which arguments the command line gives to which kind of model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smalti.cli.generators import as_gan, check_arguments, load_generator, sampling_arguments
from smalti.cli.options import SamplingOptions
from smalti.errors import CheckpointError, ConfigError
from smalti.models.prior.sampling import Sampling
from smalti.pipelines.base import load
from smalti.pipelines.gan import GAN


class Diffusion:
    """A pipeline of another kind that generates images."""

    path, card = Path("runs/x"), SimpleNamespace(kind="diffusion")

    def generate(self, count: int, *, seed: int = 0, label: str | None = None, first: int = 0) -> None: ...


def test_arguments_that_a_model_takes_pass(model: GAN, priors) -> None:
    check_arguments(model, {"label": "cat", "truncation": 0.5})
    check_arguments(load(priors.plain), {"label": "cat", "prompt": "a cat", "sampling": Sampling()})
    check_arguments(Diffusion(), {"label": "cat"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"truncation": 0.5}, "runs/x is a diffusion, which has no latents to truncate"),
        ({"prompt": "a cat"}, "runs/x is a Diffusion; prompt, temperature"),
        ({"size": 3}, "runs/x is a diffusion, which takes no size"),
    ],
)
def test_other_arguments_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_arguments(Diffusion(), given)


def test_models_of_other_kinds_are_refused(trained: SimpleNamespace, priors: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match="is a vqvae, which draws no new images"):
        load_generator(trained.vqvae, device="cpu")
    with pytest.raises(CheckpointError, match="is a prior, which has no latents to walk between or to find"):
        as_gan(load_generator(priors.plain, device="cpu"))


def test_only_what_was_typed_is_sampled_by_and_written_down() -> None:
    assert sampling_arguments(None, SamplingOptions())[0] == {"label": None, "prompt": None, "sampling": None}
    arguments, words = sampling_arguments("cat", SamplingOptions(prompt="a cat", top_k=3, temperature=0.5))
    assert arguments == {"label": "cat", "prompt": "a cat", "sampling": Sampling(temperature=0.5, top_k=3)}
    assert words == {"label": "cat", "prompt": "a cat", "temperature": 0.5, "top_k": 3}
