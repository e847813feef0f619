"""Where and how a training runs: device, precision, processes. None of it changes what is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from smalti.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Machine:
    """What was asked for: `device` is auto, cpu, cuda, cuda:1 or mps; `precision` one of `PRECISIONS`."""

    device: str = "auto"
    precision: str = "auto"
    compile: bool = False

    def resolve(self) -> tuple[torch.device, str]:
        """The device, and the precision it is good at.

        Raises:
            ConfigError: a device or a precision that is not there.
        """
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}, but must be one of {', '.join(PRECISIONS)}")
        name, ranks = self.device, world_size()
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if ranks > 1 and name not in ("cpu", "cuda", f"cuda:{os.environ.get('LOCAL_RANK', '0')}"):
            raise ConfigError(f"--device is {name!r}, but {ranks} ranks need cpu, or cuda to get one GPU each")
        try:
            device = torch.device(name)
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
                torch.cuda.set_device(device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(f"the device {name!r} cannot be used ({reason}); try --device cpu") from None
        if self.precision != "auto":
            return device, self.precision
        return device, "bfloat16" if fast_bfloat16(device) else "float32"


def world_size() -> int:
    """Processes that torchrun started for this training, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
