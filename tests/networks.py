"""Networks as they might be after some training."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def strong(network: Network) -> Network:
    """Other weights: none is zero, and values stay about as large as their input, so that what is missing shows."""
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn_like(parameter) * fan_in**-0.5)
    return network
