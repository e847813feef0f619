"""Muon: each weight matrix is updated by the orthogonalised momentum; all other parameters are updated by AdamW.

    M <- beta1 M + G,   U = G + beta1 M                                   Nesterov's momentum
    X <- a X + b (X X^T) X + c (X X^T)^2 X, five times from U / |U|       Newton-Schulz: singular values come near 1
    W <- (1 - r d) W - r 0.2 sqrt(max(rows, columns)) X                   r the learning rate, d the weight decay

With that factor an update has the same size as one of AdamW, so both use the same learning rate and weight decay.
Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", for the iteration and its
coefficients; Liu et al. 2025, arXiv:2502.16982, equation 4, for the factor; Loshchilov and Hutter 2017,
arXiv:1711.05101, for AdamW. A convolution kernel is treated as a matrix with one row per output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
SIZE = 0.2  # root mean square of an update at learning rate 1, typical of AdamW
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """The Muon optimizer, with one parameter group for matrices and one for all other parameters.

    Args:
        matrices: parameters updated by Muon.
        others: parameters updated by AdamW.
        lr: learning rate of both.
        betas: of AdamW; the first is also the momentum of Muon.
        weight_decay: decoupled weight decay of both.
        precision: dtype of the Newton-Schulz iteration; bfloat16 is enough.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.98),
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.precision = precision
        groups = [{"params": list(matrices), "matrices": True}, {"params": list(others), "matrices": False}]
        super().__init__(
            [group for group in groups if group["params"]],
            {"lr": lr, "betas": betas, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; closures are not supported."""
        assert closure is None
        for group in self.param_groups:
            update = self._orthogonal if group["matrices"] else self._adam
            for weight in group["params"]:
                if weight.grad is not None:
                    step = update(weight, weight.grad, group)
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])

    def _orthogonal(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, beta = self.state[weight], group["betas"][0]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(beta).add_(gradient)
        update = gradient.add(momentum, alpha=beta).flatten(1)
        found = orthogonal(update.to(self.precision)).to(weight.dtype)
        return found.mul_(SIZE * max(found.shape) ** 0.5).view(weight.shape)

    def _adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state |= {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight), "step": 0}
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        taken = int(state["step"])
        root = square.div(1 - beta2**taken).sqrt_().add_(EPSILON)
        return mean.div(1 - beta1**taken).div_(root)


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate U V^T of the singular value decomposition of a matrix by the Newton-Schulz iteration.

    Args:
        matrix: (rows, columns).

    Returns:
        The same shape, with singular values between 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.t() if tall else matrix
    x = x / x.norm().add(EPSILON)
    for _ in range(ITERATIONS):
        square = x @ x.t()
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x


def split(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into the weights of linear and convolutional layers, and all others."""
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    matrices = {id(_weight(layer)) for layer in module.modules() if isinstance(layer, layers)}
    parts: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for parameter in module.parameters():
        parts[id(parameter) not in matrices].append(parameter)
    return parts


def _weight(layer: nn.Module) -> object:
    """The weight of a layer, or the parameter it is computed from (as by spectral normalisation)."""
    parametrizations = getattr(layer, "parametrizations", {})
    return parametrizations["weight"].original if "weight" in parametrizations else layer.weight
