"""Where and how a training runs: device, precision, ranks. None of it changes what is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

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
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(f"the device {name!r} cannot be used ({reason}); try --device cpu") from None
        if self.precision != "auto":
            return device, self.precision
        return device, "bfloat16" if fast_bfloat16(device) else "float32"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def start_ranks(device: torch.device) -> None:
    """Join the group that torchrun describes in the environment; a single process needs none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def end_ranks() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
