"""What several processes that train together have to say to each other, in one place.

Without `torch.distributed` (one process) every function is the identity, so that models and recipes never ask how
many ranks there are. Losses are means over a rank's share of the batch and the shares are equal, so the mean over the
ranks of gradients is the gradient of the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from smalti.errors import RankError


def world() -> int:
    """Number of processes that share each batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; rank 0 writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of one tensor over the ranks; not differentiable, the input is left alone."""
    if world() == 1:
        return tensor
    total = tensor.detach().clone().contiguous()
    dist.all_reduce(total)
    return total


class _AllReduceSum(torch.autograd.Function):
    """y = sum_r x_r, and every rank's loss depends on y: dL/dx = sum_r dL_r/dy."""

    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return all_reduce_sum(x)

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient)


def all_reduce_sum_with_gradient(tensor: Tensor) -> Tensor:
    """`all_reduce_sum` with a gradient, for statistics that a loss depends on."""
    return tensor if world() == 1 else _AllReduceSum.apply(tensor)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks, all in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def gather_rows(rows: Tensor, indices: Tensor) -> Tensor:
    """Rows of the matrix that all ranks' equal shares make together, stacked in rank order.

    Args:
        rows: (N, D), this rank's share.
        indices: (K,) int64 into the world() * N rows of the whole; the same on every rank.

    Returns:
        (K, D), the same on every rank.
    """
    if world() == 1:
        return rows[indices]
    local = indices - rank() * len(rows)
    mine = (local >= 0) & (local < len(rows))
    picked = rows[local.clamp(0, len(rows) - 1)] * mine[:, None]
    return all_reduce_sum(picked)


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Make tensors those of rank 0, for what every rank has computed and no two GPUs to the same last bit."""
    if world() > 1:
        for tensor in tensors:
            whole = tensor.detach().to(_message_device()).contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def all_gather_rows(rows: Tensor) -> Tensor:
    """The matrix that all ranks' equal shares make together, in rank order, with a gradient.

    Args:
        rows: (N, D), this rank's share.

    Returns:
        (world() * N, D), the same on every rank.
    """
    if world() == 1:
        return rows
    places = rows.new_zeros(world(), *rows.shape)
    places[rank()] = 1
    return all_reduce_sum_with_gradient(places * rows).flatten(0, 1)


def all_reduce_max(value: int) -> int:
    """The largest of the ranks' numbers, the same on every rank."""
    if world() == 1:
        return value
    number = torch.tensor(value, dtype=torch.int64, device=_message_device())
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return int(number)


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """A block whose error on any rank becomes an error on all, so that no rank waits for one that is gone.

    It also makes the ranks wait for each other at its end. Nothing inside may talk to other ranks.

    Raises:
        RankError: on ranks without an error of their own, and on all but rank 0 where rank 0 has one, so that a
            mistake all ranks notice is reported once.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # kept for after the message to the others, which wait for it
        error = caught
    if world() > 1:
        failed = torch.zeros(world(), device=_message_device())
        failed[rank()] = float(error is not None)
        ranks = all_reduce_sum(failed).nonzero().flatten().tolist()
        if ranks and (error is None or (0 in ranks and rank() != 0)):
            raise RankError(f"rank {rank()} ends because of an error on rank {ranks[0]}") from error
    if error is not None:
        raise error


def join_process_group(world_size: int, device: torch.device) -> None:
    """Join the group that torchrun describes in the environment; a single process needs none."""
    if world_size > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Rank 0 may pack a large source while the others wait: hours, not torch's minutes.
        dist.init_process_group(backend, timeout=timedelta(hours=24))


def leave_process_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _message_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
