"""Tensors that belong to the state of a training, apart from networks and optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor


class TrainingState:
    """Named tensors that are moved, saved and loaded together.

    Each is an attribute of this object. Subclasses modify them in place, so references to them stay valid.

    Args:
        tensors: the initial values, by name.
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._names = tuple(tensors)
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors to a device."""
        for name in self._names:
            setattr(self, name, getattr(self, name).to(device))
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in self._names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load saved values into the tensors.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor is unknown or has another shape.
        """
        unknown = set(state) - set(self._names)
        if unknown:
            raise ValueError(f"unknown tensors {sorted(unknown)}; expected {sorted(self._names)}")
        for name in self._names:
            tensor: Tensor = getattr(self, name)
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
            tensor.copy_(state[name])
