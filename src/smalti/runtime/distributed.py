"""Communication between the ranks of a distributed training, all in one place.

With a single process every function is the identity, so models and recipes need not distinguish the two cases. Losses
are means over a rank's share of the batch and all shares are equal, so the mean of the ranks' gradients is the gradient
of the whole batch.
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
    """Number of ranks, which share each batch equally."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0; rank 0 writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of a tensor over the ranks; not differentiable, and the input is not modified."""
    if world() == 1:
        return tensor
    total = tensor.detach().clone().contiguous()
    dist.all_reduce(total)
    return total


class _AllReduceSum(torch.autograd.Function):
    """y = sum_r x_r. Every rank's loss depends on y, so dL/dx = sum_r dL_r/dy."""

    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return all_reduce_sum(x)

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient)


def all_reduce_sum_with_gradient(tensor: Tensor) -> Tensor:
    """Differentiable `all_reduce_sum`, for statistics that a loss depends on."""
    return tensor if world() == 1 else _AllReduceSum.apply(tensor)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks, in one all-reduce."""
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


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copy tensors from rank 0 to all ranks, in place; GPUs may disagree in the last bits of the same computation."""
    if world() > 1:
        for tensor in tensors:
            whole = tensor.detach().to(_message_device()).contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def all_gather_rows(rows: Tensor) -> Tensor:
    """The matrix that consists of all ranks' equal shares, stacked in rank order; differentiable.

    Args:
        rows: (N, D), this rank's share.

    Returns:
        (world() * N, D), the same on every rank.
    """
    if world() == 1:
        return rows
    mask = rows.new_zeros(world(), *rows.shape)
    mask[rank()] = 1
    return all_reduce_sum_with_gradient(mask * rows).flatten(0, 1)


def all_reduce_max(value: int) -> int:
    """Maximum of an integer over the ranks, the same on every rank."""
    if world() == 1:
        return value
    number = torch.tensor(value, dtype=torch.int64, device=_message_device())
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return int(number)


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """A block in which an error on any rank becomes an error on all, so that no rank waits for one that has failed.

    The end of the block is a barrier. Code inside must not communicate with other ranks.

    Raises:
        RankError: on ranks without an error of their own; and if rank 0 has an error, on all other ranks, so that a
            mistake common to all ranks is reported only once.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # raised below, once the other ranks, which are waiting, know about it
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
    """Join the process group described by torchrun's environment variables; does nothing for a single process."""
    if world_size > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Rank 0 may pack a large source while the others wait, which can take longer than torch's default timeout.
        dist.init_process_group(backend, timeout=timedelta(hours=24))


def leave_process_group() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _message_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
