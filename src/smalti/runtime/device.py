"""Where a training runs: device, precision, number of processes. None of these are part of its configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from smalti.errors import ConfigError, arg

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Machine:
    """The requested device and precision.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: one of `PRECISIONS`.
        compile: use torch.compile.
    """

    device: str = "auto"
    precision: str = "auto"
    compile: bool = False

    def resolve(self) -> tuple[torch.device, str]:
        """Choose the device and precision.

        Returns:
            The device, and "bfloat16" or "float32": by default bfloat16 if the device has hardware support for it.

        Raises:
            ConfigError: the device is not available, or the precision is unknown.
        """
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}, but must be one of {', '.join(PRECISIONS)}")
        name, ranks = self.device, world_size()
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if ranks > 1 and name not in ("cpu", "cuda", f"cuda:{os.environ.get('LOCAL_RANK', '0')}"):
            raise ConfigError(f"{arg('device')} is {name!r}, but {ranks} ranks need cpu, or cuda to get one GPU each")
        try:
            device = torch.device(name)
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
                torch.cuda.set_device(device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(f"the device {name!r} cannot be used ({reason}); try {arg('device')} cpu") from None
        if self.precision != "auto":
            return device, self.precision
        return device, "bfloat16" if fast_bfloat16(device) else "float32"


def world_size() -> int:
    """Number of processes that torchrun started for this training; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device supports bfloat16 in hardware rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
