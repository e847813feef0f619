"""Two processes that share a batch quantize, and learn, as one process does with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from variants import VARIANTS, latents

from smalti.quantize import build_quantizer
from smalti.runtime.distributed import average_gradients, leave_process_group, rank, world

STEPS, BATCH, FAR_APART = 3, 4, 1e-5


def mask_of(step: int) -> Tensor:
    """(BATCH, 5, 3): of its two examples a rank keeps some, in the third step rank 1 none."""
    kept = (
        torch.rand(BATCH, 5, 3, generator=torch.Generator().manual_seed(step))
        < torch.tensor([0.9, 0.7, 0.2, 0.6])[:, None, None]
    )
    return kept & (torch.arange(BATCH) < (2 if step == 2 else BATCH))[:, None, None]


def learn(name: str, *, masked: bool = False) -> dict[str, Any]:
    """Some steps on this rank's share of the batches, and what came of them."""
    config = VARIANTS[name]
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    share, losses, values, codes = BATCH // world(), [], [], []
    for step in range(STEPS):
        mine = slice(rank() * share, (rank() + 1) * share)
        whole = latents(config, step, batch=BATCH)
        result = quantizer(whole[mine].requires_grad_(), mask=mask_of(step)[mine] if masked else None)
        (result.values.square().mean() + result.loss).backward()
        average_gradients(quantizer.parameters())
        with torch.no_grad():
            for parameter in quantizer.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        losses.append(result.loss.detach())
        values.append(result.values.detach())
        codes.append(result.codes)
    return {"state": quantizer.state_dict(), "loss": torch.stack(losses), "values": values, "codes": codes}


def one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    try:
        found = {name: learn(name) for name in VARIANTS}
        found |= {f"{name} masked": learn(name, masked=True) for name in VARIANTS}
        torch.save(found, f"{folder}/{number}.pt")
    finally:
        leave_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("masked", [False, True])
def test_two_ranks_are_one(name: str, masked: bool, ranks: list[dict[str, Any]]) -> None:
    whole = learn(name, masked=masked)
    first, second = (found[f"{name} masked" if masked else name] for found in ranks)
    for key, tensor in whole["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        torch.testing.assert_close(first["state"][key], tensor, rtol=FAR_APART, atol=FAR_APART, msg=key)
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, whole["loss"], rtol=FAR_APART, atol=FAR_APART)
    for step in range(STEPS):
        assert torch.equal(torch.cat([first["codes"][step], second["codes"][step]]), whole["codes"][step])
        together = torch.cat([first["values"][step], second["values"][step]])
        torch.testing.assert_close(together, whole["values"][step], rtol=1e-4, atol=1e-4)
