"""Tensors that a training saves and resumes beside its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor


class TrainingState:
    """Named tensors that are moved, saved and loaded together.

    Each becomes an attribute. Subclasses change them in place, so that whoever holds one sees the change.

    Args:
        tensors: the initial values, by name.
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._names = tuple(tensors)
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors."""
        for name in self._names:
            setattr(self, name, getattr(self, name).to(device))
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in self._names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy saved values in.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor has another shape, or one is unknown.
        """
        unknown = set(state) - set(self._names)
        if unknown:
            raise ValueError(f"unknown tensors {sorted(unknown)}; expected {sorted(self._names)}")
        for name in self._names:
            tensor: Tensor = getattr(self, name)
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
            tensor.copy_(state[name])
