"""Opens models that generate images; what is said of a model of another kind, and of flags that are for another."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from smalti.cli.options import SamplingOptions
    from smalti.pipelines.gan import GAN

_SAMPLING = ("temperature", "top_k", "top_p", "guidance", "steps")


def load_generator(path: Path, *, device: str) -> Any:
    """A model that generates images: a `GAN`, a `Prior`, or another pipeline with the method `generate`.

    Raises:
        CheckpointError: as `smalti.load`, or the model generates no images.
    """
    from smalti.pipelines.base import load
    from smalti.pipelines.gan import GAN

    model = load(path, device=device)
    if not hasattr(model, "generate"):
        raise CheckpointError(f"{model.path} is a {model.card.kind}, which {GAN.missing}")
    return model


def load_gan(path: Path, *, device: str) -> GAN:
    """A model with a latent space.

    Raises:
        CheckpointError: as `load_generator`, or the model has no latents.
    """
    return as_gan(load_generator(path, device=device))


def as_gan(model: Any) -> GAN:
    """The same model, if it has a latent space; CheckpointError otherwise."""
    from smalti.pipelines.gan import GAN

    if not isinstance(model, GAN):
        raise CheckpointError(
            f"{model.path} is a {model.card.kind}, which has no latents to walk between or to find; "
            "give a model trained with a gan preset, for example gan-nano"
        )
    return model


def check_arguments(model: Any, given: dict[str, Any]) -> None:
    """Check that the `generate` of a model takes the arguments that were given.

    Args:
        given: the arguments, without those that were left out.

    Raises:
        ConfigError: an argument of another kind of model.
    """
    unknown = given.keys() - inspect.signature(model.generate).parameters.keys()
    if "truncation" in unknown:
        raise ConfigError(
            f"{model.path} is a {model.card.kind}, which has no latents to truncate; lower the temperature"
        )
    if unknown & {"prompt", "sampling"}:
        raise ConfigError(
            f"{model.path} is a {type(model).__name__}; "
            "prompt, temperature, top k, top p, guidance and steps are for a prior"
        )
    if unknown:
        raise ConfigError(f"{model.path} is a {model.card.kind}, which takes no {', '.join(sorted(unknown))}")


def sampling_arguments(label: str | None, options: SamplingOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """The label, prompt and sampling of a command line.

    Returns:
        The arguments of `Prior.generate`, `fill` and `vary`; and the words for them in a picture's metadata.

    Raises:
        ConfigError: a number out of range.
    """
    from smalti.models.prior.sampling import Sampling

    chosen = {name: value for name in _SAMPLING if (value := getattr(options, name)) is not None}
    words = {"label": label, "prompt": options.prompt}
    return words | {"sampling": Sampling(**chosen) if chosen else None}, words | chosen
