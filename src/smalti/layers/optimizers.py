"""Optimizers by name, and one update of one of them."""

from __future__ import annotations

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


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update: gradients of the loss, their mean over the ranks, one step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
