"""Optimizers by name, learning-rate schedules, and one optimization step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smalti.config.optimizer import OptimizerConfig
from smalti.optim.muon import Muon, split
from smalti.runtime.distributed import average_gradients

OPTIMIZERS: dict[str, Callable[[nn.Module, OptimizerConfig, torch.dtype], torch.optim.Optimizer]] = {
    "adam": lambda module, c, _: torch.optim.Adam(
        module.parameters(), c.learning_rate, (c.beta1, c.beta2), weight_decay=c.weight_decay, fused=True
    ),
    "adamw": lambda module, c, _: torch.optim.AdamW(
        module.parameters(), c.learning_rate, (c.beta1, c.beta2), weight_decay=c.weight_decay, fused=True
    ),
    "muon": lambda module, c, precision: Muon(
        *split(module), c.learning_rate, (c.beta1, c.beta2), weight_decay=c.weight_decay, precision=precision
    ),
    "rmsprop": lambda module, c, _: torch.optim.RMSprop(
        module.parameters(), c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay
    ),
    "sgd": lambda module, c, _: torch.optim.SGD(
        module.parameters(), c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay, fused=True
    ),
}


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, precision: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """Build the optimizer of a configuration for the parameters of a module.

    Args:
        module: whose parameters are optimized.
        config: name and hyperparameters.
        precision: dtype of the matrix products inside a Muon step; other optimizers ignore it.
    """
    return OPTIMIZERS[config.name](module, config, precision)


def rate_factor(config: OptimizerConfig, images_seen: int, images: int) -> float:
    """Factor of the learning rate at this point of the learning-rate schedule.

        warm-up  seen / warm_up, at most 1
        cosine   (1 + cos(pi seen / images)) / 2         (Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5)

    Args:
        config: schedule and warm-up.
        images_seen: number of images seen, including the step about to be taken.
        images: length of the whole training in images.
    """
    factor = min(1.0, images_seen / config.warm_up) if config.warm_up else 1.0
    if config.schedule == "cosine":
        factor *= (1 + math.cos(math.pi * min(1.0, images_seen / images))) / 2
    return factor


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One optimization step: backward pass, gradients averaged over the ranks, optimizer step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
