"""Optimizers by name, their schedules, and one update of one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from smalti.config import OptimizerConfig
from smalti.layers.ranks import average_gradients

Parameters = Iterable[nn.Parameter]

OPTIMIZERS: dict[str, Callable[[Parameters, OptimizerConfig], torch.optim.Optimizer]] = {
    "adam": lambda parameters, c: torch.optim.Adam(
        parameters, c.learning_rate, (c.beta1, c.beta2), weight_decay=c.weight_decay, fused=True
    ),
    "adamw": lambda parameters, c: torch.optim.AdamW(
        parameters, c.learning_rate, (c.beta1, c.beta2), weight_decay=c.weight_decay, fused=True
    ),
    "rmsprop": lambda parameters, c: torch.optim.RMSprop(
        parameters, c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay
    ),
    "sgd": lambda parameters, c: torch.optim.SGD(
        parameters, c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay, fused=True
    ),
}


def build_optimizer(parameters: Parameters, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer a configuration names, over the given parameters."""
    return OPTIMIZERS[config.name](list(parameters), config)


def rate_factor(config: OptimizerConfig, images_seen: int, images: int) -> float:
    """What the learning rate is times by now.

        warm-up  seen / warm_up, at most 1
        cosine   (1 + cos(pi seen / images)) / 2         (Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5)

    Args:
        images_seen: counted with the step that is about to be taken.
        images: of the whole training.
    """
    factor = min(1.0, images_seen / config.warm_up) if config.warm_up else 1.0
    if config.schedule == "cosine":
        factor *= (1 + math.cos(math.pi * min(1.0, images_seen / images))) / 2
    return factor


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update: gradients of the loss, their mean over the ranks, one step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
