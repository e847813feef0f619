"""Settings of an optimizer and its learning-rate schedule. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from smalti.config.fields import ValidatedConfig, choice, number


@dataclass(frozen=True)
class OptimizerConfig(ValidatedConfig):
    """An optimizer. `beta1` and `beta2` apply to adam, adamw and muon, `momentum` to rmsprop and sgd."""

    name: str = choice("adam", "adamw", "muon", "rmsprop", "sgd")
    learning_rate: float = number(3e-4, 0.0, 100.0)
    beta1: float = number(0.9, 0.0, 0.999999)
    beta2: float = number(0.999, 0.0, 0.999999)
    momentum: float = number(0.0, 0.0, 0.999999)
    weight_decay: float = number(0.0, 0.0, 10.0)
    schedule: str = choice("constant", "cosine")  # of the learning rate; cosine decays to 0 at the end of the training
    warm_up: int = number(0, 0, 10**10)  # images over which the learning rate rises linearly from 0
